//! Hashing of root's password for a VE's `/etc/shadow`.

use api::latest::{ApiError, ErrorCode};
use sha_crypt::{PasswordHasher, ShaCrypt};

/// Longest password: what glibc's crypt takes in full.
const LENGTH_MAX: usize = 512;

/// The hash of a password in the format that every distribution's crypt(5) reads (`$6$`, SHA-512).
///
/// # Errors
/// Refuses passwords that are empty, too long, or hold a line end or a NUL, which nobody can type.
pub(crate) fn hash(password: &str) -> Result<String, ApiError> {
    if password.is_empty() || password.len() > LENGTH_MAX || password.contains(['\n', '\r', '\0']) {
        return Err(ApiError::new(
            ErrorCode::Usage,
            format!("the password must be one line of 1 to {LENGTH_MAX} bytes"),
        ));
    }
    ShaCrypt::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| {
            ApiError::new(
                ErrorCode::Failed,
                format!("the password cannot be hashed: {error}"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_salted_sha512() {
        let (first, second) = (hash("secret").unwrap(), hash("secret").unwrap());
        assert!(first.starts_with("$6$"), "{first}");
        assert_ne!(first, second);
        assert!(!first.contains(':'));
    }

    #[test]
    fn what_cannot_be_typed_is_refused() {
        for password in ["", "a\nb", "a\0b"] {
            assert!(hash(password).is_err());
        }
    }
}
