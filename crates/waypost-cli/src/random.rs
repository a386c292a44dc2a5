//! Random bytes for secrets.

use crate::error::CommandError;

/// Unpredictable bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], CommandError> {
    let mut bytes = [0; N];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| CommandError::other("the system's random number generator failed"))?;
    Ok(bytes)
}
