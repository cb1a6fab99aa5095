# The divvy program alone; the database is elsewhere (see docker-compose.yml).
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY sql sql
COPY src src
RUN cargo build --release --locked --bin divvy

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home divvy
COPY --from=build /build/target/release/divvy /usr/local/bin/divvy
USER divvy
# Inside of a container the loopback address is reached by nobody.
ENV DIVVY_LISTEN=0.0.0.0:8080 DIVVY_AUTH=token
EXPOSE 8080
ENTRYPOINT ["divvy"]
CMD ["serve"]
