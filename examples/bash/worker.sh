#!/usr/bin/env bash
# A divvy worker in bash, with psql alone: DATABASE_URL=postgres://… bash worker.sh TYPE
#
# Its job: the sum of squares of a range of numbers. Each split has {"lo", "hi"}; reduce adds what they returned.
set -euo pipefail

type=$1
# What a type is like that nobody has declared yet: it has a reduce, and a worker that dies is noticed after 3 s.
options='{"reduce": true, "lease": "3 s", "backoff": {"kind": "fixed", "base": 1}}'
me=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen)
box=$(mktemp -d) # what the worker and its heartbeat tell one another: held, quiet, stop
trap 'touch "$box/stop"' TERM INT

# Runs the statements on stdin; name=value arguments are :'name' in them. psql quotes, so nothing is spliced into SQL.
sql() { psql "$DATABASE_URL" -XAtq -F ' ' -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -v me="$me" -v type="$type" "${@/#/-v}"; }

# Your work: prints the result as JSON. Its arguments are what the claim below takes out of the split.
execute() { # seconds lo hi
  sleep "$1"
  local n sum=0
  for ((n = $2; n < $3; n++)); do sum=$((sum + n * n)); done
  echo "$sum"
}

# Your end of the task: the results are added up where they are. More than 1000 come in pages.
reduce() { # split token
  sql split="$1" token="$2" <<<"select sum(result::bigint) from divvy.reduce_inputs(:split, :token)"
}

# -- the worker --------------------------------------------------------------------------------------------------------
# Renews the lease, and hears what is not wanted any more and what an operator wants.
beat() {
  trap - TERM INT
  while sleep "$1" && kill -0 $$ 2>/dev/null; do
    read -r split token pid <"$box/held" || true
    sql split="${split:-}" token="${token:-}" <<'SQL' | while IFS=' ' read -r split verdict; do
select coalesce(split_id::text, 'worker'), verdict
from divvy.heartbeat(:'me', array_remove(array[nullif(:'split', '')::bigint], null), array_remove(array[nullif(:'token', '')::bigint], null));
SQL
      case "$split $verdict" in
      'worker run') rm -f "$box/quiet" ;;
      'worker quiet') touch "$box/quiet" ;;
      'worker terminate') touch "$box/stop" ;;
      *' ok') ;;
      *) kill "$pid" 2>/dev/null || true ;; # cancelled or lost: the work is not wanted any more
      esac
    done || true
  done
}

run() { # split token phase trace seconds lo hi
  local split=$1 token=$2 code=0 end
  # Whoever made the task goes on in your spans: OpenTelemetry's tools read this variable.
  export TRACEPARENT=${4#-}
  if [ -n "$TRACEPARENT" ]; then
    sql split="$split" token="$token" message="in the trace $TRACEPARENT" <<<"select divvy.log(:split, :token, 'debug', :'message')" >/dev/null || true
  fi
  if [ "$3" = reduce ]; then reduce "$split" "$token"; else execute "${@:5}"; fi >"$box/result" 2>"$box/error" &
  local work=$!
  echo "$split $token $work" >"$box/held"
  until { wait "$work" && code=0 || code=$?; } && ! kill -0 "$work" 2>/dev/null; do :; done # a signal to us ends the wait only
  case $code in
  0) end="divvy.complete(:split, :token, :'result')" ;;
  75) end="divvy.snooze(:split, :token, '1 s')" ;;
  143) end="divvy.release(:split, :token)" ;; # the heartbeat has ended it
  *) end="divvy.fail(:split, :token, jsonb_build_object('class', 'exit $code', 'message', :'error'))" ;;
  esac
  sql split="$split" token="$token" result="$(<"$box/result")" error="$(tail -n 1 "$box/error")" <<<"select $end" >/dev/null 2>"$box/refusal" ||
    grep -qE 'DV00[12]' "$box/refusal" || cat "$box/refusal" >&2 # lost, cancelled: nothing left to say
  : >"$box/held"
}

: >"$box/held"
every=$(sql options="$options" <<<"select extract(epoch from heartbeat) from divvy.register_worker(:'me', 'bash', array[:'type'], 1,
  jsonb_build_object('types', jsonb_build_object(:'type', :'options'::jsonb)))")
beat "$every" &
heart=$!
while [ ! -e "$box/stop" ]; do
  split=''
  if [ ! -e "$box/quiet" ]; then
    split=$(sql <<<"select split_id, token, phase, coalesce(headers ->> 'traceparent', '-'), coalesce(payload ->> 'seconds', '0'), split_payload ->> 'lo', split_payload ->> 'hi'
      from divvy.claim(:'me', array[:'type'])")
  fi
  if [ -n "$split" ] && [ -e "$box/stop" ]; then # what has not begun goes back at once
    read -r id token _ <<<"$split"
    sql split="$id" token="$token" <<<"select divvy.release(:split, :token)" >/dev/null
  elif [ -n "$split" ]; then
    # shellcheck disable=SC2086 # its words are the arguments
    run $split
  else # sleep as long as the database says; a signal ends the sleep
    sleep "$(sql <<<"select extract(epoch from divvy.next_wait(array[:'type']))")" &
    wait $! || true
  fi
done
kill "$heart" 2>/dev/null || true
rm -rf "$box"
