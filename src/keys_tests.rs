//! The key folder: made once, shared, kept, and refused where it is not whole.

use super::*;

#[test]
fn a_folder_is_made_once_and_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a/keys");
    let first = ClusterKeys::open_or_create(&folder).unwrap();
    let again = ClusterKeys::open_or_create(&folder).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(first.token().kid, again.token().kid);
    assert_eq!(*first.token().private_pem, *again.token().private_pem);
    assert_eq!(ClusterKeys::open(&folder).unwrap().ca_pem(), first.ca_pem());
}

#[test]
fn nodes_that_start_together_over_one_folder_agree() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("keys");
    let seen: Vec<(String, String)> = std::thread::scope(|scope| {
        let starters: Vec<_> = (1..=8)
            .map(|node| {
                let folder = &folder;
                scope.spawn(move || {
                    let keys = ClusterKeys::open_or_create(folder).unwrap();
                    keys.issue_node(node, &[]).unwrap();
                    (keys.ca_pem().to_owned(), keys.token().kid.clone())
                })
            })
            .collect();
        starters.into_iter().map(|starter| starter.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|keys| *keys == seen[0]));
}

#[test]
fn folder_and_files_are_the_owners_alone() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
    ClusterKeys::open_or_create(temp.path()).unwrap().issue_node(1, &[]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(temp.path()), 0o700);
    for entry in fs::read_dir(temp.path()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn a_crash_while_making_is_made_good_but_a_lost_file_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(MAKING), "").unwrap();
    fs::write(temp.path().join("ca.key"), "half").unwrap();
    ClusterKeys::open_or_create(temp.path()).unwrap().issue_node(1, &[]).unwrap();

    fs::remove_file(temp.path().join("token.pub")).unwrap();
    let error = ClusterKeys::open_or_create(temp.path()).unwrap_err();
    assert!(
        matches!(&error, KeyError::Incomplete { missing, .. } if missing == "token.pub"),
        "{error}"
    );
}

#[test]
fn nonsense_in_a_file_is_named_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    ClusterKeys::open_or_create(temp.path()).unwrap();
    fs::write(temp.path().join("ca.crt"), "nonsense").unwrap();
    let error = ClusterKeys::open_or_create(temp.path()).unwrap_err();
    assert!(error.to_string().contains("ca.crt"), "{error}");
    assert_eq!(fs::read_to_string(temp.path().join("ca.crt")).unwrap(), "nonsense");
}

#[test]
fn a_folder_that_is_not_there_is_not_made_by_a_reader() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("keys");
    assert!(matches!(ClusterKeys::open(&folder), Err(KeyError::Missing { .. })));
    assert!(!folder.exists());
}

#[test]
fn a_nodes_certificate_names_it_and_its_hosts() {
    let temp = tempfile::tempdir().unwrap();
    let keys = ClusterKeys::open_or_create(temp.path()).unwrap();
    let node = keys
        .issue_node(3, &["chat.example.org".into(), "10.1.2.3".into(), "0.0.0.0".into()])
        .unwrap();
    let wanted = node_host_names(3, &["chat.example.org".into(), "10.1.2.3".into()]).unwrap();
    assert!(covers(&node.chain, &wanted));
    assert!(!covers(&node.chain, &node_host_names(4, &[]).unwrap()));
    let (_, parsed) = x509_parser::parse_x509_certificate(&node.chain[0]).unwrap();
    let (_, authority) = x509_parser::parse_x509_certificate(keys.ca()).unwrap();
    parsed.verify_signature(Some(authority.public_key())).unwrap();
    assert_eq!(parsed.issuer(), authority.subject());
}

#[test]
fn a_certificate_is_kept_until_a_host_is_missing_from_it() {
    let temp = tempfile::tempdir().unwrap();
    let keys = ClusterKeys::open_or_create(temp.path()).unwrap();
    let first = keys.issue_node(1, &["one.example".into()]).unwrap();
    assert_eq!(first.chain, keys.issue_node(1, &[]).unwrap().chain);
    let moved = keys.issue_node(1, &["two.example".into()]).unwrap();
    assert_ne!(first.chain, moved.chain);
    assert_eq!(moved.chain, keys.issue_node(1, &["two.example".into()]).unwrap().chain);
}

#[test]
fn without_the_authoritys_key_issued_certificates_still_serve() {
    let temp = tempfile::tempdir().unwrap();
    ClusterKeys::open_or_create(temp.path()).unwrap().issue_node(1, &[]).unwrap();
    fs::remove_file(temp.path().join("ca.key")).unwrap();
    let keys = ClusterKeys::open_or_create(temp.path()).unwrap();
    keys.issue_node(1, &[]).unwrap();
    assert!(keys.issue_node(2, &[]).unwrap_err().to_string().contains("ca.key"));
}

#[test]
fn hosts_that_no_certificate_can_name_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let keys = ClusterKeys::open_or_create(temp.path()).unwrap();
    assert!(matches!(keys.issue_node(1, &["two words".into()]), Err(KeyError::Host(_))));
}

#[test]
fn a_key_id_is_the_rfc_7638_thumbprint() {
    // The key and its thumbprint are those of RFC 8037, appendix A.
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    assert_eq!(key_id(pem).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn the_token_pair_signs_and_checks_tokens() {
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
    let temp = tempfile::tempdir().unwrap();
    let keys = ClusterKeys::open_or_create(temp.path()).unwrap();
    let claims = serde_json::json!({"sub": "alice", "exp": 4_000_000_000_u64});
    let private = EncodingKey::from_ed_pem(keys.token().private_pem.as_bytes()).unwrap();
    let public = DecodingKey::from_ed_pem(keys.token().public_pem.as_bytes()).unwrap();
    let token = encode(&Header::new(Algorithm::EdDSA), &claims, &private).unwrap();
    let checked =
        decode::<serde_json::Value>(&token, &public, &Validation::new(Algorithm::EdDSA)).unwrap();
    assert_eq!(checked.claims["sub"], "alice");
}
