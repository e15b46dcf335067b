//! What the suite needs around the library: real Redis servers, and a way to wait for them.
//!
//! The harness does not depend on the library, so a mistake in one cannot hide one in the other.
//!
//! - [`RedisServer`]: a `redis-server` process of its own for each test, on a free loopback port
//!   and in a temporary directory. Both are gone when the value is dropped.
//! - [`CommandCounts`], [`CommandWatch`]: what a server ran, and what its clients sent.
//! - [`Certificates`]: a certificate authority and a server certificate, for TLS.
