//! Servers whose program was built without TLS.

use std::{
    env,
    io::{self, Write as _},
    panic::Location,
    sync::OnceLock,
    thread,
};

use super::{RedisServer, program::Program};

/// The variable that says that the program has no TLS, so that its tests are left out.
const VARIABLE: &str = "REDIS_SERVER_WITHOUT_TLS";

impl RedisServer {
    /// Whether the calling test, which is about TLS, is to be left out, because the environment has
    /// `REDIS_SERVER_WITHOUT_TLS=1`. Prints so even if the output of tests is captured: the lines
    /// that begin with `left out:` can be counted.
    ///
    /// Without that variable no test is left out: starting a server with TLS fails where the
    /// program has none.
    ///
    /// # Panics
    ///
    /// When the variable is set and the program has TLS.
    #[track_caller]
    pub fn leaves_out_tls() -> bool {
        static HAS_TLS: OnceLock<bool> = OnceLock::new();
        if env::var_os(VARIABLE).is_none_or(|value| value.is_empty() || value == "0") {
            return false;
        }
        let version = Self::version();
        let has_tls = *HAS_TLS.get_or_init(has_tls);
        assert!(!has_tls, "{VARIABLE} is set, but {} has TLS", Program::of_this_process());
        let thread = thread::current();
        let line = format!(
            "left out: {} at {}: {version} was built without TLS\n",
            thread.name().unwrap_or_default(),
            Location::caller(),
        );
        // In one piece, so that the lines of two tests do not mix.
        let _ = io::stderr().write_all(line.as_bytes());
        true
    }
}

fn has_tls() -> bool {
    match RedisServer::builder().tls(true).try_start() {
        Ok(_) => true,
        Err(message) => {
            assert!(is_missing(&message), "{message}");
            false
        }
    }
}

/// Whether a server with TLS has failed to start because its program has none.
fn is_missing(message: &str) -> bool {
    // Before Redis 7.2, the program does not know the flags; since then, it knows them but cannot
    // apply them.
    let signs = ["Missing implement of connection type tls", "Bad directive"];
    signs.iter().any(|sign| message.contains(sign))
}

/// What to do about a server that has failed to start, if its message is about TLS.
pub(super) fn advice(message: &str) -> &'static str {
    if message.contains("tls") && is_missing(message) {
        "\nThis program was built without TLS: REDIS_SERVER_WITHOUT_TLS=1 leaves those tests out."
    } else {
        ""
    }
}
