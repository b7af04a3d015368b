//! Keys and certificates: the folder that makes nodes one cluster.
//!
//! A key folder holds the cluster's own certificate authority (`ca.crt`, `ca.key`), the Ed25519 pair
//! that signs tokens (`token.key`, `token.pub`), and for each node a certificate issued by that
//! authority (`node-1.crt`, `node-1.key`). It is made at the first start; nothing in it has a default.
//! Nodes that share the folder, or were given copies of it, trust each other and each other's tokens.
//!
//! What it promises:
//! - Nodes that start at the same time over one folder agree: it is made and read under a file lock.
//! - A cluster key that exists is never written again. A folder that a crash left half-made is made
//!   anew, since no node has read it yet; one that lost a file since then is an error.
//! - The folder has mode 0700, its files 0600, and secrets are wiped from memory when dropped.
//! - A folder that cannot be written serves as long as it is whole: then nothing is stored, and a
//!   missing node certificate is issued in memory.
//!
//! What tokens say is `auth`'s; who may connect with which certificate is the listeners'.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData as _, SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

/// The DNS name in every node's certificate: a client of the cluster that trusts its authority
/// checks for this one, whichever node it reaches.
pub const CLUSTER_NAME: &str = "roost";

/// The files of a whole folder. `ca.key` may be kept elsewhere once the nodes have certificates.
const CLUSTER_FILES: [&str; 4] = ["ca.crt", "ca.key", "token.key", "token.pub"];
/// There while the cluster's files are being made: nobody has used them yet.
const MAKING: &str = ".making";
/// Locked while the folder is looked at or changed.
const LOCK: &str = ".lock";
/// Certificates are valid from long ago, for machines whose clock has not been set,
const VALID_FROM_YEAR: i32 = 2000;
/// until the last year that every X.509 implementation encodes alike.
const VALID_UNTIL_YEAR: i32 = 2049;

/// Why a key folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The folder has some of the cluster's files, but not all.
    #[error(
        "the key folder {folder} lacks {missing}; restore it from another node's copy, or remove the \
         folder if no node has used it"
    )]
    Incomplete {
        /// The folder.
        folder: PathBuf,
        /// The first file that it lacks.
        missing: String,
    },
    /// There is no key folder where one is needed.
    #[error(
        "there are no keys in {folder}; they are made by the first `roost serve`, `roost dev` or `roost keys init`"
    )]
    Missing {
        /// Where keys were expected.
        folder: PathBuf,
    },
    /// A file does not hold what its name says.
    #[error("{path} does not hold {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A host that no certificate can name.
    #[error("{0:?} is neither an IP address nor a DNS name")]
    Host(String),
    /// A key or certificate could not be made.
    #[error("cannot make a key or certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The pair that signs the cluster's own tokens.
#[derive(Clone)]
pub struct TokenKeys {
    /// Names the key: its RFC 7638 thumbprint.
    pub kid: String,
    /// The Ed25519 private key, PKCS#8 in PEM.
    pub private_pem: Zeroizing<String>,
    /// The Ed25519 public key, SubjectPublicKeyInfo in PEM.
    pub public_pem: String,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKeys").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// What one node needs to prove who it is, and to check others.
#[derive(Debug)]
pub struct NodeKeys {
    /// The node that the certificate names.
    pub node_id: u64,
    /// The authority that peers' certificates must come from.
    pub ca: CertificateDer<'static>,
    /// The node's certificate, for clients and peers. The authority's own is not in it: whoever
    /// checks has it already.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificate's private key.
    pub key: PrivateKeyDer<'static>,
    /// The cluster's token keys.
    pub token: TokenKeys,
}

impl Clone for NodeKeys {
    fn clone(&self) -> Self {
        Self {
            node_id: self.node_id,
            ca: self.ca.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            token: self.token.clone(),
        }
    }
}

/// The DNS name that only this node's certificate has.
pub fn node_name(node_id: u64) -> String {
    format!("node-{node_id}.{CLUSTER_NAME}")
}

/// The RFC 7638 thumbprint of an Ed25519 public key in PEM, which tokens name as `kid`.
///
/// # Errors
/// [`rcgen::Error`] for anything but an Ed25519 SubjectPublicKeyInfo.
pub fn key_id(public_pem: &str) -> Result<String, rcgen::Error> {
    let public = SubjectPublicKeyInfo::from_pem(public_pem)?;
    if public.algorithm() != &PKCS_ED25519 {
        return Err(rcgen::Error::UnsupportedSignatureAlgorithm);
    }
    let x = URL_SAFE_NO_PAD.encode(public.der_bytes());
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)))
}

/// A cluster's keys, read from their folder.
#[derive(Debug)]
pub struct ClusterKeys {
    folder: PathBuf,
    ca_pem: String,
    ca: CertificateDer<'static>,
    token: TokenKeys,
}

impl ClusterKeys {
    /// Reads the folder, after making it if it is not there or empty.
    ///
    /// # Errors
    /// [`KeyError`]: the folder is incomplete, malformed, or cannot be read or made.
    pub fn open_or_create(folder: &Path) -> Result<Self, KeyError> {
        make_folder(folder)?;
        let Some(_lock) = lock(folder)? else { return Self::read(folder) };
        // No node reads the folder while this mark is in it, so nothing that is lost here was used.
        let abandoned = folder.join(MAKING).exists();
        let empty = CLUSTER_FILES.iter().all(|name| !folder.join(name).exists());
        if abandoned || empty {
            make_cluster_files(folder)?;
        }
        Self::read(folder)
    }

    /// Reads a folder that must be there.
    ///
    /// # Errors
    /// As [`ClusterKeys::open_or_create`], and [`KeyError::Missing`].
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        if !folder.join("token.key").try_exists().map_err(io_error("read", folder))? {
            return Err(KeyError::Missing { folder: folder.to_owned() });
        }
        let _lock = lock(folder)?;
        Self::read(folder)
    }

    /// The authority's certificate in PEM, for clients that check whom they talk to.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's certificate.
    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// The pair that signs tokens.
    pub fn token(&self) -> &TokenKeys {
        &self.token
    }

    /// A node's keys: those in the folder if their certificate names all `hosts` (IP addresses or
    /// DNS names), else newly issued ones, stored in the folder.
    ///
    /// # Errors
    /// [`KeyError`], above all if a certificate must be issued and `ca.key` is not there.
    pub fn issue_node(&self, node_id: u64, hosts: &[String]) -> Result<NodeKeys, KeyError> {
        let lock = lock(&self.folder)?;
        let certificate_path = self.folder.join(format!("node-{node_id}.crt"));
        let key_path = self.folder.join(format!("node-{node_id}.key"));
        let names = node_host_names(node_id, hosts)?;
        if certificate_path.exists() && key_path.exists() {
            let keys = self.node_keys(
                node_id,
                (&certificate_path, read_text(&certificate_path)?.as_bytes()),
                (&key_path, read_secret(&key_path)?.as_bytes()),
            )?;
            if covers(&keys.chain, &names) {
                return Ok(keys);
            }
        }
        let (certificate_pem, key_pem) = self.issue(node_id, names)?;
        if lock.is_some() {
            // The key first: a crash in between leaves a pair that does not match only if there was
            // an older certificate, so that one goes before.
            remove_if_there(&certificate_path)?;
            replace(&key_path, key_pem.as_bytes())?;
            replace(&certificate_path, certificate_pem.as_bytes())?;
        }
        self.node_keys(
            node_id,
            (&certificate_path, certificate_pem.as_bytes()),
            (&key_path, key_pem.as_bytes()),
        )
    }

    fn node_keys(
        &self,
        node_id: u64,
        (certificate_path, certificate_pem): (&Path, &[u8]),
        (key_path, key_pem): (&Path, &[u8]),
    ) -> Result<NodeKeys, KeyError> {
        Ok(NodeKeys {
            node_id,
            ca: self.ca.clone(),
            chain: vec![parse_certificate(certificate_path, certificate_pem)?],
            key: PrivateKeyDer::from_pem_slice(key_pem)
                .map_err(|_| malformed(key_path, "a private key in PEM"))?,
            token: self.token.clone(),
        })
    }

    /// Makes a node's certificate and key, both in PEM.
    fn issue(
        &self,
        node_id: u64,
        names: Vec<SanType>,
    ) -> Result<(String, Zeroizing<String>), KeyError> {
        let ca_key_path = self.folder.join("ca.key");
        let ca_key = KeyPair::from_pem(&read_secret(&ca_key_path)?)
            .map_err(|_| malformed(&ca_key_path, "a private key in PEM"))?;
        let issuer = Issuer::from_ca_cert_der(&self.ca, ca_key)?;
        let key = KeyPair::generate()?;
        let mut params = certificate_params(&node_name(node_id));
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
    }

    /// Reads the cluster's files, which must all be there but `ca.key`.
    fn read(folder: &Path) -> Result<Self, KeyError> {
        for name in CLUSTER_FILES.iter().filter(|name| **name != "ca.key") {
            let path = folder.join(name);
            if !path.try_exists().map_err(io_error("read", &path))? {
                return Err(KeyError::Incomplete {
                    folder: folder.to_owned(),
                    missing: (*name).to_owned(),
                });
            }
        }
        let ca_path = folder.join("ca.crt");
        let ca_pem = read_text(&ca_path)?;
        let ca = parse_certificate(&ca_path, ca_pem.as_bytes())?;
        let public_path = folder.join("token.pub");
        let public_pem = read_text(&public_path)?;
        let kid = key_id(&public_pem)
            .map_err(|_| malformed(&public_path, "an Ed25519 public key in PEM"))?;
        let private_path = folder.join("token.key");
        let private_pem = read_secret(&private_path)?;
        let pair = KeyPair::from_pem(&private_pem)
            .map_err(|_| malformed(&private_path, "an Ed25519 private key in PEM"))?;
        if key_id(&pair.public_key_pem()).ok().as_ref() != Some(&kid) {
            return Err(malformed(&private_path, "the private key of token.pub"));
        }
        let token = TokenKeys { kid, private_pem, public_pem };
        Ok(Self { folder: folder.to_owned(), ca_pem, ca, token })
    }
}

/// Makes all cluster files. The caller holds the lock.
fn make_cluster_files(folder: &Path) -> Result<(), KeyError> {
    replace(&folder.join(MAKING), b"")?;
    let mut number = [0; 4];
    rand::rng().fill_bytes(&mut number);
    let ca_key = KeyPair::generate()?;
    let mut params =
        certificate_params(&format!("Roost cluster {:08x}", u32::from_be_bytes(number)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&ca_key)?;
    let token = KeyPair::generate_for(&PKCS_ED25519)?;
    replace(&folder.join("ca.key"), Zeroizing::new(ca_key.serialize_pem()).as_bytes())?;
    replace(&folder.join("ca.crt"), ca.pem().as_bytes())?;
    replace(&folder.join("token.key"), Zeroizing::new(token.serialize_pem()).as_bytes())?;
    replace(&folder.join("token.pub"), token.public_key_pem().as_bytes())?;
    remove_if_there(&folder.join(MAKING))?;
    sync_folder(folder)
}

fn certificate_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(VALID_FROM_YEAR, 1, 1);
    params.not_after = rcgen::date_time_ymd(VALID_UNTIL_YEAR, 12, 31);
    params
}

/// The names in a node's certificate: the cluster's, the node's, this machine's, and `hosts`.
/// Addresses that stand for "any" name nobody and are left out.
fn node_host_names(node_id: u64, hosts: &[String]) -> Result<Vec<SanType>, KeyError> {
    let own = [
        CLUSTER_NAME.to_owned(),
        "localhost".into(),
        node_name(node_id),
        "127.0.0.1".into(),
        "::1".into(),
    ];
    let mut names = Vec::new();
    for host in own.iter().chain(hosts) {
        let name = match host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => continue,
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(dns_name(host)?),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn dns_name(host: &str) -> Result<rcgen::string::Ia5String, KeyError> {
    let plausible = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !plausible {
        return Err(KeyError::Host(host.to_owned()));
    }
    rcgen::string::Ia5String::try_from(host).map_err(|_| KeyError::Host(host.to_owned()))
}

/// Whether a certificate has all these names.
fn covers(chain: &[CertificateDer<'static>], names: &[SanType]) -> bool {
    let Some(certificate) = chain.first() else { return false };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return false };
    let present = &extension.value.general_names;
    names.iter().all(|name| match name {
        SanType::DnsName(wanted) => present
            .iter()
            .any(|name| matches!(name, GeneralName::DNSName(text) if *text == wanted.as_str())),
        SanType::IpAddress(IpAddr::V4(wanted)) => present
            .iter()
            .any(|name| matches!(name, GeneralName::IPAddress(bytes) if *bytes == wanted.octets())),
        SanType::IpAddress(IpAddr::V6(wanted)) => present
            .iter()
            .any(|name| matches!(name, GeneralName::IPAddress(bytes) if *bytes == wanted.octets())),
        _ => false,
    })
}

fn parse_certificate(path: &Path, pem: &[u8]) -> Result<CertificateDer<'static>, KeyError> {
    CertificateDer::from_pem_slice(pem).map_err(|_| malformed(path, "a certificate in PEM"))
}

fn malformed(path: &Path, expected: &'static str) -> KeyError {
    KeyError::Malformed { path: path.to_owned(), expected }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { action, path, source }
}

fn make_folder(folder: &Path) -> Result<(), KeyError> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error("make", folder))
}

/// Takes the folder's lock; `None` if the folder cannot be written, where nothing can change either.
fn lock(folder: &Path) -> Result<Option<File>, KeyError> {
    let path = folder.join(LOCK);
    let file =
        match OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if is_read_only(&error) => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
    file.lock().map_err(io_error("lock", &path))?;
    let mode = fs::metadata(folder).map_err(io_error("read", folder))?.permissions().mode();
    if mode & 0o077 != 0 {
        // A mounted volume comes with its own mode.
        fs::set_permissions(folder, Permissions::from_mode(0o700))
            .map_err(io_error("protect", folder))?;
    }
    Ok(Some(file))
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn read_text(path: &Path) -> Result<String, KeyError> {
    fs::read_to_string(path).map_err(io_error("read", path))
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    read_text(path).map(Zeroizing::new)
}

/// Writes a file durably: whoever opens it sees all of it or none.
fn replace(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let draft = staged(path);
    remove_if_there(&draft)?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(io_error("write", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Where a file's next content stands until it is whole.
fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn remove_if_there(path: &Path) -> Result<(), KeyError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), KeyError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("write", folder))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
