//! Signatures: of what is pushed, as the Standard Webhooks specification says, and of the tokens by which callbacks come.

use crate::id::{SplitId, Token};
use crate::{Error, ErrorKind, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// What a secret that signs begins with.
const PREFIX: &str = "whsec_";
/// Kept apart from whatever else the key may sign.
const TICKET: &[u8] = b"divvy callback 1";
/// A split's id and a token.
const TICKET_BYTES: usize = 16;

/// A key that signs. It is never printed.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The key of a secret `whsec_` and base64.
    ///
    /// # Errors
    /// Config when it is none. The message has nothing of it.
    pub fn new(secret: &str) -> Result<Self> {
        let bytes = secret.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
        let key = bytes.and_then(|bytes| Hmac::new_from_slice(&bytes).ok());
        key.map(Self).ok_or_else(|| Error::new(ErrorKind::Config, "it is not whsec_ and base64"))
    }

    /// The signature of a message: `v1,` and base64.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The right to say once what became of a split: good as long as the split is held by this token, or waits for its callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The split.
    pub split: SplitId,
    /// The token of its claim.
    pub token: Token,
}

impl Ticket {
    /// As text that can stand in a URL: 64 characters, which nobody makes without the key.
    pub fn seal(self, key: &Key) -> String {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&self.split.0.to_be_bytes());
        bytes.extend_from_slice(&self.token.0.to_be_bytes());
        let mac = Self::mac(key, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether a text could be one.
    pub fn is_like(text: &str) -> bool {
        text.len() == 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    }

    /// What a text says, if one of the keys made it.
    pub fn open(text: &str, keys: &[Key]) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (said, mac) = bytes.split_at_checked(TICKET_BYTES)?;
        // In constant time.
        keys.iter().find(|key| Self::mac(key, said).verify_slice(mac).is_ok())?;
        let number = |bytes: &[u8]| Some(i64::from_be_bytes(bytes.try_into().ok()?));
        Some(Self { split: SplitId(number(&said[..8])?), token: Token(number(&said[8..])?) })
    }

    fn mac(key: &Key, said: &[u8]) -> Hmac<Sha256> {
        let mut mac = key.0.clone();
        mac.update(TICKET);
        mac.update(said);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the specification's reference libraries.
        let key = Key::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_not_told() {
        for wrong in ["", "whsec_%%%", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(Key::new(wrong).unwrap_err().to_string(), "it is not whsec_ and base64");
        }
        assert_eq!(format!("{:?}", Key::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()), "Key");
    }

    #[test]
    fn a_ticket_opens_with_its_key_alone_and_whole() {
        let key = Key::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let other = Key::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let ticket = Ticket { split: SplitId(17), token: Token(i64::MAX) };
        let sealed = ticket.seal(&key);
        assert!(Ticket::is_like(&sealed) && !Ticket::is_like("x"));
        assert_eq!(Ticket::open(&sealed, std::slice::from_ref(&key)), Some(ticket));
        assert_eq!(Ticket::open(&sealed, &[other.clone(), key.clone()]), Some(ticket));
        assert_eq!(Ticket::open(&sealed, &[other]), None);
        for at in 0..64 {
            let mut broken = sealed.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(broken).unwrap();
            assert_eq!(Ticket::open(&broken, std::slice::from_ref(&key)), None, "{broken}");
        }
        for short in ["", "A", &sealed[..20], &sealed[..63], "ä"] {
            assert_eq!(Ticket::open(short, std::slice::from_ref(&key)), None);
        }
    }
}
