//! What samples say, with how much uncertainty.
