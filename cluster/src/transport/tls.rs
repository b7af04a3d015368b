//! Mutual TLS 1.3 between peers; the certificate names the node.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use roost_raft::NodeId;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

const ALPN: &[u8] = b"roost-peer/1";

/// Why peers can't be talked to at all.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
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
    /// The cluster's authority, this node's certificate chain and its key.
    ///
    /// # Errors
    /// [`TlsError::Setup`] if the authority's certificate does not read.
    pub fn new(
        ca: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca).map_err(setup)?;
        Ok(Self { roots: Arc::new(roots), chain, key })
    }

    pub(crate) fn server_config(&self) -> Result<quinn::ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
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
