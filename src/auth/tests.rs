//! What a token may and may not do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const NOW_MS: u64 = 1_760_000_000_000;
const NOW_S: u64 = NOW_MS / 1_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn key_pair() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

fn token_keys(pair: &rcgen::KeyPair) -> TokenKeys {
    let public_pem = pair.public_key_pem();
    TokenKeys {
        kid: key_id(&public_pem).unwrap(),
        private_pem: Zeroizing::new(pair.serialize_pem()),
        public_pem,
    }
}

fn signing_key() -> SigningKey {
    SigningKey::new(&token_keys(&key_pair())).unwrap()
}

fn verifier(key: &SigningKey) -> Verifier {
    let mut verifier = Verifier::new();
    verifier.accept_own(key).unwrap();
    verifier
}

fn alice() -> Grant {
    Grant { user: UserId::new("alice").unwrap(), device: None, admin: false, ttl_s: 3_600 }
}

/// A token with any claims, signed by `key`.
fn signed(key: &SigningKey, claims: &Value) -> String {
    let header = Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &key.encoding).unwrap()
}

fn file(dir: &tempfile::TempDir, name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_minted_token_names_its_user() {
    let key = signing_key();
    let token = key.mint_at(&alice(), NOW_MS).unwrap();
    let identity = verifier(&key).verify_at(&token, NOW_MS).unwrap();
    assert_eq!(identity.user.as_str(), "alice");
    assert_eq!(identity.device, None);
    assert!(!identity.admin);
    assert_eq!(identity.expires_at_ms, NOW_MS + 3_600_000 + LEEWAY_MS);
}

#[test]
fn device_and_admin_come_back_out() {
    let key = signing_key();
    let grant = Grant { device: Some(DeviceId::new("phone").unwrap()), admin: true, ..alice() };
    let identity = verifier(&key).verify_at(&key.mint_at(&grant, NOW_MS).unwrap(), NOW_MS).unwrap();
    assert_eq!(identity.device, grant.device);
    assert!(identity.admin);
}

#[test]
fn a_token_ends_with_its_leeway() {
    let key = signing_key();
    let verifier = verifier(&key);
    let token = key.mint_at(&alice(), NOW_MS).unwrap();
    let end = NOW_MS + 3_600_000 + LEEWAY_MS;
    assert!(verifier.verify_at(&token, end - 1).is_ok());
    assert_eq!(verifier.verify_at(&token, end), Err(AuthError::Expired));
}

#[test]
fn claims_are_checked() {
    let key = signing_key();
    let verifier = verifier(&key);
    let cases = [
        (json!({"exp": NOW_S + 60}), AuthError::Claim("sub")),
        (json!({"sub": "alice"}), AuthError::Claim("exp")),
        (json!({"sub": "", "exp": NOW_S + 60}), AuthError::Claim("sub")),
        (json!({"sub": "x".repeat(65), "exp": NOW_S + 60}), AuthError::Claim("sub")),
        (json!({"sub": "alice", "exp": "soon"}), AuthError::Malformed),
        (json!({"sub": "alice", "exp": -1}), AuthError::Claim("exp")),
        (json!({"sub": "alice", "exp": NOW_S - 11}), AuthError::Expired),
        (json!({"sub": "alice", "exp": NOW_S + 60, "nbf": NOW_S + 30}), AuthError::NotYetValid),
        (json!({"sub": "alice", "exp": NOW_S + 60, "device": ""}), AuthError::Claim("device")),
        (json!({"sub": "alice", "exp": NOW_S + 60, "aud": "billing"}), AuthError::Claim("aud")),
        (json!({"sub": "alice", "exp": NOW_S + 60, "admin": "yes"}), AuthError::Malformed),
    ];
    for (claims, expected) in cases {
        let refused = verifier.verify_at(&signed(&key, &claims), NOW_MS).unwrap_err();
        assert_eq!(refused, expected, "{claims}");
    }
    let fine =
        json!({"sub": "alice", "exp": 1_760_000_060.5, "nbf": NOW_S + 5, "aud": ["roost", "x"]});
    assert!(verifier.verify_at(&signed(&key, &fine), NOW_MS).is_ok());
}

#[test]
fn another_nodes_key_is_unknown() {
    let token = signing_key().mint_at(&alice(), NOW_MS).unwrap();
    assert_eq!(verifier(&signing_key()).verify_at(&token, NOW_MS), Err(AuthError::UnknownKey));
}

#[test]
fn a_forged_signature_is_refused() {
    let (own, other) = (signing_key(), signing_key());
    let header = Header { kid: Some(own.kid.clone()), ..Header::new(Algorithm::EdDSA) };
    let claims = json!({"sub": "alice", "exp": NOW_S + 60});
    let forged = jsonwebtoken::encode(&header, &claims, &other.encoding).unwrap();
    assert_eq!(verifier(&own).verify_at(&forged, NOW_MS), Err(AuthError::Signature));
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let key = signing_key();
    let claims = json!({"sub": "alice", "exp": NOW_S + 60, "admin": true});
    for kid in [None, Some(key.kid.clone())] {
        let header = Header { kid, ..Header::new(Algorithm::HS256) };
        let forged = jsonwebtoken::encode(
            &header,
            &claims,
            &EncodingKey::from_secret(key.decoding.try_get_as_bytes().unwrap()),
        )
        .unwrap();
        assert_eq!(verifier(&key).verify_at(&forged, NOW_MS), Err(AuthError::UnknownKey));
    }
}

#[test]
fn none_is_no_algorithm() {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": "alice", "exp": NOW_S + 60});
    let token = format!("{}.{}.", encode(json!({"alg": "none", "typ": "JWT"})), encode(claims));
    assert_eq!(verifier(&signing_key()).verify_at(&token, NOW_MS), Err(AuthError::Malformed));
}

#[test]
fn nonsense_is_malformed() {
    let verifier = verifier(&signing_key());
    for token in ["", "a.b.c", "...", "é", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
        assert_eq!(verifier.verify_at(token, NOW_MS), Err(AuthError::Malformed));
    }
}

#[test]
fn an_applications_public_key_is_found_by_stem_thumbprint_or_without_name() {
    let dir = tempfile::tempdir().unwrap();
    let pair = key_pair();
    let key = SigningKey::new(&token_keys(&pair)).unwrap();
    let mut verifier = verifier(&signing_key());
    verifier
        .accept_public_key_file(&file(&dir, "shop.pem", pair.public_key_pem().as_bytes()))
        .unwrap();
    let claims = json!({"sub": "alice", "exp": NOW_S + 60});
    for kid in [None, Some("shop".to_owned()), Some(key.kid.clone())] {
        let header = Header { kid, ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &claims, &key.encoding).unwrap();
        assert!(verifier.verify_at(&token, NOW_MS).is_ok());
    }
}

#[test]
fn a_shared_secret_signs_hs256_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut verifier = Verifier::new();
    let content = [SECRET, b"\n".as_slice()].concat();
    verifier.accept_secret_file(&file(&dir, "shared.key", &content)).unwrap();
    let claims = json!({"sub": "alice", "exp": NOW_S + 60});
    let token = |algorithm| {
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(SECRET))
            .unwrap()
    };
    assert!(verifier.verify_at(&token(Algorithm::HS256), NOW_MS).is_ok());
    assert_eq!(verifier.verify_at(&token(Algorithm::HS512), NOW_MS), Err(AuthError::UnknownKey));
}

#[test]
fn unusable_key_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut verifier = Verifier::new();
    let short = file(&dir, "short.key", &SECRET[..31]);
    assert!(matches!(verifier.accept_secret_file(&short), Err(KeyError::ShortSecret(_))));
    let private = file(&dir, "private.pem", key_pair().serialize_pem().as_bytes());
    assert!(matches!(verifier.accept_public_key_file(&private), Err(KeyError::NotEd25519(_))));
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let other = file(&dir, "p256.pem", p256.public_key_pem().as_bytes());
    assert!(matches!(verifier.accept_public_key_file(&other), Err(KeyError::NotEd25519(_))));
    let missing = verifier.accept_public_key_file(&dir.path().join("none.pem"));
    assert!(matches!(missing, Err(KeyError::Read { .. })));
}

#[test]
fn keys_are_not_shown() {
    let key = signing_key();
    assert_eq!(format!("{key:?}"), format!("SigningKey {{ kid: {:?}, .. }}", key.kid()));
}

#[test]
fn an_administrators_token_is_checked_once_and_still_expires() {
    let key = signing_key();
    let mut verifier = verifier(&key);
    let [users, admins] =
        [false, true].map(|admin| key.mint_at(&Grant { admin, ..alice() }, NOW_MS).unwrap());
    assert!(verifier.verify_at(&users, NOW_MS).is_ok());
    let first = verifier.verify_at(&admins, NOW_MS).unwrap();
    // Whatever is accepted from here on is accepted by what was found before.
    verifier.keys.clear();
    assert_eq!(verifier.verify_at(&admins, NOW_MS), Ok(first.clone()));
    assert_eq!(verifier.verify_at(&users, NOW_MS), Err(AuthError::UnknownKey));
    let mut altered = admins.clone().into_bytes();
    let last = altered.last_mut().unwrap();
    *last = if *last == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).unwrap();
    assert_eq!(verifier.verify_at(&altered, NOW_MS), Err(AuthError::UnknownKey));
    assert_eq!(verifier.verify_at(&admins, first.expires_at_ms), Err(AuthError::Expired));
}
