//! Mutual TLS 1.3 between peers; the certificate names the node.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use roost_raft::NodeId;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

const ALPN: &[u8] = b"roost-peer/1";

/// Why peers can't be talked to at all.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate does not read.
    #[error("the {0} can't be read: {1}")]
    Pem(&'static str, String),
    /// Key, certificate and authority do not fit each other.
    #[error("TLS set-up: {0}")]
    Setup(String),
    /// The peer port can't be bound.
    #[error("the peer address {0} can't be bound: {1}")]
    Bind(SocketAddr, std::io::Error),
}

/// What a node proves itself with.
#[derive(Debug)]
pub struct PeerTls {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl PeerTls {
    /// From PEM: the cluster's authority, this node's certificate chain and key.
    pub fn from_pem(ca: &str, chain: &str, key: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("cluster's certificate", ca)? {
            roots.add(certificate).map_err(|error| TlsError::Setup(error.to_string()))?;
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| TlsError::Pem("node's key", error.to_string()))?;
        Ok(Self { roots: Arc::new(roots), chain: certificates("node's certificate", chain)?, key })
    }

    pub(crate) fn server_config(&self) -> Result<quinn::ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
            .build()
            .map_err(setup)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(setup)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(config).map_err(setup)?;
        Ok(quinn::ServerConfig::with_crypto(Arc::new(crypto)))
    }

    pub(crate) fn client_config(&self) -> Result<quinn::ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(setup)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(config).map_err(setup)?;
        Ok(quinn::ClientConfig::new(Arc::new(crypto)))
    }
}

fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem(what, error.to_string()))
}

/// The name that a node's certificate carries.
pub(crate) fn node_name(id: NodeId) -> String {
    format!("node-{id}.roost")
}

/// Which node a connection's verified certificate names.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        x509_parser::extensions::GeneralName::DNSName(name) => {
            name.strip_prefix("node-")?.strip_suffix(".roost")?.parse().ok()
        }
        _ => None,
    })
}
