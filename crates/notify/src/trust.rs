//! Whom TLS trusts besides the system's authorities: those in a file of the administrator's, for servers whose
//! certificates come from an authority of their own.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};

/// Authorities that a file has at most: the system's own file has some 150.
const AUTHORITIES_MAX: usize = 1_000;

/// Why a file of authorities is none.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It has another place wherever the daemon is started.
    #[error("`{}` is no absolute path of a file with certificates", .0.display())]
    Relative(PathBuf),
    /// It cannot be read, or is no PEM.
    #[error("the certificates in {} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PemError,
    },
    /// It has none, or none that can be an authority's.
    #[error("{} has no certificate of an authority: it holds blocks `BEGIN CERTIFICATE` (PEM)", .0.display())]
    Empty(PathBuf),
    /// It has more than anybody trusts.
    #[error("{} has more than {AUTHORITIES_MAX} certificates", .0.display())]
    TooMany(PathBuf),
}

/// The certificates of authorities in a file, as PEM (RFC 7468).
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let own = || path.to_owned();
    if !path.is_absolute() {
        return Err(TrustError::Relative(own()));
    }
    let failed = |source| TrustError::Read {
        path: own(),
        source,
    };
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .take(AUTHORITIES_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let mut known = rustls::RootCertStore::empty();
    let (usable, _) = known.add_parsable_certificates(found.iter().cloned());
    match found.len() {
        _ if usable == 0 => Err(TrustError::Empty(own())),
        count if count > AUTHORITIES_MAX => Err(TrustError::TooMany(own())),
        _ => Ok(found),
    }
}
