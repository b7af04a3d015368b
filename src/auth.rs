//! Tokens: who a client is, and how that is proven.
//!
//! A token is a JWT. Two kinds of keys sign one: Ed25519 keys (`EdDSA`; the node's own token key,
//! and further public keys that the application configures) and secrets that the application shares
//! (`HS256`). Each key has exactly one algorithm, and a token is checked only by keys of the
//! algorithm that its header names: a public key never serves as a secret, and `none` is no
//! algorithm at all. A token that names a key (`kid`) is checked by that key alone.
//!
//! Claims: `sub` (the user) and `exp` are required; `nbf` is honoured; `device` binds the token to
//! one device; `admin: true` makes an administrator; a token for another audience (`aud` without
//! `roost`) is refused. Clocks may differ by [`LEEWAY_MS`].
//!
//! No error here says anything of a token but what is wrong with it: tokens never reach a log.

mod checked;

use std::path::Path;

use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use roost_cluster::host::unix_ms;
use roost_protocol::limits::MAX_TOKEN_BYTES;
use roost_storage::model::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::checked::{Checked, Fingerprint};
use crate::keys::{TokenKeys, key_id};

/// How far the clocks of whoever signs and of this node may differ, in milliseconds.
pub const LEEWAY_MS: u64 = 10_000;
/// Shortest shared secret, in bytes: the output length of the hash below HS256.
pub const MIN_SECRET_BYTES: usize = 32;
/// Most keys that a verifier holds, which bounds what a token without `kid` costs.
pub const MAX_KEYS: usize = 32;

/// What `aud` must contain, if the token has one.
const AUDIENCE: &str = "roost";

/// Why a key can't be used. Names the file, never what it holds.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file can't be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Not an Ed25519 key in PEM.
    #[error("{0}: not an Ed25519 key in PEM")]
    NotEd25519(String),
    /// A shared secret that can be guessed.
    #[error("{0}: a shared secret has at least {MIN_SECRET_BYTES} bytes")]
    ShortSecret(String),
    /// More keys than [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} token keys")]
    TooMany,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not a JWT, too long, or a claim of the wrong type.
    #[error("not a valid token")]
    Malformed,
    /// No accepted key has this name and algorithm.
    #[error("the token is signed by a key that is not accepted here")]
    UnknownKey,
    /// The signature does not match.
    #[error("the token's signature does not match")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A required claim is missing or unusable.
    #[error("the token's claim `{0}` is missing or invalid")]
    Claim(&'static str),
}

/// Who a verified token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The only device that may use the token; any device without it.
    pub device: Option<DeviceId>,
    /// Whether it is an administrator's.
    pub admin: bool,
    /// From when on the token is no longer accepted (`exp` and the leeway), in milliseconds since
    /// the Unix epoch.
    pub expires_at_ms: u64,
}

/// What [`SigningKey::mint`] writes into a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The user.
    pub user: UserId,
    /// The only device that may use it.
    pub device: Option<DeviceId>,
    /// Whether it is an administrator's.
    pub admin: bool,
    /// How long it is valid, in seconds.
    pub ttl_s: u64,
}

/// A token's claims as they are on the wire; times are in seconds since the Unix epoch and may
/// have a fraction (RFC 7519, `NumericDate`).
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Whole(u64),
    Fraction(f64),
}

impl Seconds {
    /// Milliseconds, without overflow; `None` for a time before the epoch or no number at all.
    fn to_ms(self) -> Option<u64> {
        match self {
            Self::Whole(seconds) => Some(seconds.saturating_mul(1_000)),
            // The cast saturates; its fraction of a millisecond does not matter.
            Self::Fraction(seconds) if seconds >= 0.0 => Some((seconds * 1_000.0) as u64),
            Self::Fraction(_) => None,
        }
    }
}

/// What a node checks tokens with, and signs them with.
#[derive(Debug)]
pub struct Auth {
    /// Checks tokens.
    pub verifier: Verifier,
    /// Signs them.
    pub signer: SigningKey,
}

impl Auth {
    /// The cluster's own key, and the keys of the application in `public_keys` and `secrets`.
    ///
    /// # Errors
    /// [`KeyError`] for the first key that can't be used.
    pub fn load(
        own: &TokenKeys,
        public_keys: &[impl AsRef<Path>],
        secrets: &[impl AsRef<Path>],
    ) -> Result<Self, KeyError> {
        let signer = SigningKey::new(own)?;
        let mut verifier = Verifier::new();
        verifier.accept_own(&signer)?;
        for path in public_keys {
            verifier.accept_public_key_file(path.as_ref())?;
        }
        for path in secrets {
            verifier.accept_secret_file(path.as_ref())?;
        }
        Ok(Self { verifier, signer })
    }
}

/// The key that this node signs with.
#[derive(Clone)]
pub struct SigningKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    kid: String,
}

impl SigningKey {
    /// The cluster's own key.
    ///
    /// # Errors
    /// [`KeyError::NotEd25519`] for anything but an Ed25519 pair.
    pub fn new(own: &TokenKeys) -> Result<Self, KeyError> {
        let refuse = || KeyError::NotEd25519("the cluster's token key".to_owned());
        let encoding =
            EncodingKey::from_ed_pem(own.private_pem.as_bytes()).map_err(|_| refuse())?;
        let (decoding, kid) = public_key(&own.public_pem).ok_or_else(refuse)?;
        Ok(Self { encoding, decoding, kid })
    }

    /// The key's name in tokens: its JWK thumbprint (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A signed token, valid from now on.
    ///
    /// # Errors
    /// [`KeyError::NotEd25519`] if the key can't sign.
    pub fn mint(&self, grant: &Grant) -> Result<String, KeyError> {
        self.mint_at(grant, unix_ms())
    }

    /// [`SigningKey::mint`] at a given time, in milliseconds since the Unix epoch.
    fn mint_at(&self, grant: &Grant, now_ms: u64) -> Result<String, KeyError> {
        let now_s = now_ms / 1_000;
        let claims = Claims {
            sub: Some(grant.user.as_str().to_owned()),
            exp: Some(Seconds::Whole(now_s.saturating_add(grant.ttl_s))),
            nbf: None,
            iat: Some(Seconds::Whole(now_s)),
            device: grant.device.as_ref().map(|device| device.as_str().to_owned()),
            admin: grant.admin,
        };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.encoding)
            .map_err(|_| KeyError::NotEd25519("the cluster's token key".to_owned()))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// A key that tokens are checked with.
struct VerifyingKey {
    /// The names by which a token may ask for it.
    kids: Vec<String>,
    decoding: DecodingKey,
    /// The one algorithm that it serves.
    algorithm: Algorithm,
}

impl VerifyingKey {
    fn serves(&self, header: &Header) -> bool {
        self.algorithm == header.alg
            && header.kid.as_ref().is_none_or(|kid| self.kids.contains(kid))
    }
}

/// Checks tokens against the accepted keys.
#[derive(Default)]
pub struct Verifier {
    keys: Vec<VerifyingKey>,
    checked: Checked,
}

impl Verifier {
    /// A verifier that accepts no token yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts the tokens of a node's own key.
    ///
    /// # Errors
    /// [`KeyError::TooMany`].
    pub fn accept_own(&mut self, key: &SigningKey) -> Result<(), KeyError> {
        self.push(vec![key.kid.clone()], key.decoding.clone(), Algorithm::EdDSA)
    }

    /// Accepts the tokens of an Ed25519 public key in a PEM file. Its `kid` is the file's stem, or
    /// the key's thumbprint.
    ///
    /// # Errors
    /// [`KeyError`] if the file holds no such key.
    pub fn accept_public_key_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let pem = read(path)?;
        let refuse = || KeyError::NotEd25519(path.display().to_string());
        let text = std::str::from_utf8(&pem).map_err(|_| refuse())?;
        let (decoding, thumbprint) = public_key(text).ok_or_else(refuse)?;
        self.push(vec![stem(path), thumbprint], decoding, Algorithm::EdDSA)
    }

    /// Accepts HS256 tokens of a secret in a file: its bytes, without a line end at the end. Its
    /// `kid` is the file's stem.
    ///
    /// # Errors
    /// [`KeyError`] if the file can't be read or the secret is too short.
    pub fn accept_secret_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let bytes = read(path)?;
        let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyError::ShortSecret(path.display().to_string()));
        }
        self.push(vec![stem(path)], DecodingKey::from_secret(secret), Algorithm::HS256)
    }

    fn push(
        &mut self,
        kids: Vec<String>,
        decoding: DecodingKey,
        algorithm: Algorithm,
    ) -> Result<(), KeyError> {
        if self.keys.len() == MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        self.keys.push(VerifyingKey { kids, decoding, algorithm });
        Ok(())
    }

    /// Who a token speaks for, now.
    ///
    /// # Errors
    /// [`AuthError`] says what is wrong with it.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        self.verify_at(token, unix_ms())
    }

    /// [`Verifier::verify`] at a given time, in milliseconds since the Unix epoch.
    fn verify_at(&self, token: &str, now_ms: u64) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Malformed);
        }
        let fingerprint = Fingerprint::of(token);
        if let Some(claims) = self.checked.get(&fingerprint) {
            return identity(&claims, now_ms);
        }
        let claims = self.check(token)?;
        let identity = identity(&claims, now_ms)?;
        if identity.admin {
            self.checked.keep(fingerprint, claims);
        }
        Ok(identity)
    }

    /// The claims of a token that an accepted key has signed.
    fn check(&self, token: &str) -> Result<Claims, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        let mut refusal = AuthError::UnknownKey;
        for key in self.keys.iter().filter(|key| key.serves(&header)) {
            match decode(token, key) {
                Ok(claims) => return Ok(claims),
                Err(error) => refusal = error,
            }
            // Another key may have signed it only if this one did not.
            if refusal != AuthError::Signature {
                break;
            }
        }
        Err(refusal)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<_> = self.keys.iter().flat_map(|key| &key.kids).collect();
        f.debug_struct("Verifier").field("kids", &kids).finish_non_exhaustive()
    }
}

/// Checks the signature and the audience. The other claims are [`identity`]'s, which is told the time.
fn decode(token: &str, key: &VerifyingKey) -> Result<Claims, AuthError> {
    let mut validation = Validation::new(key.algorithm);
    validation.required_spec_claims.clear();
    validation.set_audience(&[AUDIENCE]);
    validation.validate_exp = false;
    jsonwebtoken::decode(token, &key.decoding, &validation)
        .map(|data| data.claims)
        .map_err(|error| refusal(&error))
}

fn refusal(error: &JwtError) -> AuthError {
    match error.kind() {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAudience => AuthError::Claim("aud"),
        _ => AuthError::Malformed,
    }
}

fn identity(claims: &Claims, now_ms: u64) -> Result<Identity, AuthError> {
    let expires_at_ms = claims
        .exp
        .and_then(Seconds::to_ms)
        .ok_or(AuthError::Claim("exp"))?
        .saturating_add(LEEWAY_MS);
    if expires_at_ms <= now_ms {
        return Err(AuthError::Expired);
    }
    if let Some(not_before) = claims.nbf {
        let not_before_ms = not_before.to_ms().ok_or(AuthError::Claim("nbf"))?;
        if not_before_ms > now_ms.saturating_add(LEEWAY_MS) {
            return Err(AuthError::NotYetValid);
        }
    }
    let sub = claims.sub.as_deref().ok_or(AuthError::Claim("sub"))?;
    let user = UserId::new(sub).map_err(|_| AuthError::Claim("sub"))?;
    let device = claims.device.as_deref();
    let device = device.map(DeviceId::new).transpose().map_err(|_| AuthError::Claim("device"))?;
    Ok(Identity { user, device, admin: claims.admin, expires_at_ms })
}

/// An Ed25519 public key out of PEM, and its thumbprint.
fn public_key(pem: &str) -> Option<(DecodingKey, String)> {
    let kid = key_id(pem).ok()?;
    let info = rcgen::SubjectPublicKeyInfo::from_pem(pem).ok()?;
    let raw = rcgen::PublicKeyData::der_bytes(&info);
    // The library below takes the first 32 bytes without looking.
    (raw.len() == 32).then(|| (DecodingKey::from_ed_der(raw), kid))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| KeyError::Read { file: path.display().to_string(), source })
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
