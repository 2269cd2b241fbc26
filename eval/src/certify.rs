//! Certificates for lossy plans.
