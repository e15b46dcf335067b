//! The program of the servers.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The variable that names the program, as a path or as a name on the PATH.
const VARIABLE: &str = "REDIS_SERVER";
const DEFAULT: &str = "redis-server";

/// The program of every server of this process.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) version: ServerVersion,
}

/// The name and version of a server's program, such as `Redis 7.0.15` or `Valkey 8.1.8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    name: String,
    numbers: Vec<u32>,
}

impl ServerVersion {
    /// Whether the server is older than this version. Valkey's versions continue from Redis 7.2.
    pub fn is_before(&self, major: u32, minor: u32) -> bool {
        self.numbers < vec![major, minor]
    }

    /// Whether the nodes of a cluster move slots on their own, without a time when a slot is half
    /// moved, as Valkey does since 9.0.
    pub fn moves_slots_at_once(&self) -> bool {
        self.name == "Valkey" && !self.is_before(9, 0)
    }

    /// Reads `Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=..`.
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.trim().split_once(" server v=")?;
        let numbers: Result<Vec<_>, _> =
            rest.split_whitespace().next()?.split('.').map(str::parse).collect();
        Some(Self { name: name.to_owned(), numbers: numbers.ok()? })
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.numbers.iter().map(u32::to_string).collect();
        write!(f, "{} {}", self.name, numbers.join("."))
    }
}

impl Program {
    /// The program, which is asked for its version once. Prints which one it is, even if the output
    /// of tests is captured.
    pub(super) fn of_this_process() -> &'static Self {
        static PROGRAM: OnceLock<Program> = OnceLock::new();
        PROGRAM.get_or_init(|| {
            let named = env::var_os(VARIABLE).filter(|name| !name.is_empty());
            let program = Self::find(named).unwrap_or_else(|message| panic!("{message}"));
            let _ = writeln!(io::stderr(), "{program}");
            program
        })
    }

    fn find(named: Option<OsString>) -> Result<Self, String> {
        let is_named = named.is_some();
        let path = PathBuf::from(named.unwrap_or_else(|| DEFAULT.into()));
        let of = if is_named { format!("{VARIABLE}={}", path.display()) } else { DEFAULT.into() };
        // Servers run in directories of their own, where a relative path would name another file.
        // Links are not resolved: some programs act as a server only under that name.
        let path = if path.components().count() > 1 {
            std::path::absolute(&path).map_err(|error| format!("{of}: {error}"))?
        } else {
            path
        };
        let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => {
                return Err(format!(
                    "there is no {DEFAULT} on the PATH: run the tests with tests/run, which \
                     installs it",
                ));
            }
            Err(error) => return Err(format!("{of} cannot be started: {error}")),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let version = ServerVersion::parse(&said).filter(|_| output.status.success());
        let version = version.ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!(
                "{of} is neither a Redis nor a Valkey server: with --version it ends with {} and says \
                 {:?}",
                output.status,
                format!("{said}{errors}").trim(),
            )
        })?;
        Ok(Self { path, version })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "servers: {} ({})", self.version, self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version = |text| ServerVersion::parse(text).unwrap();
        let redis = version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64");
        assert_eq!(redis.to_string(), "Redis 7.0.15");
        assert!(redis.is_before(7, 1) && !redis.is_before(7, 0) && !redis.is_before(6, 2));
        let valkey = version("Valkey server v=10.1.8 sha=00000000:1 malloc=libc bits=64\n");
        assert_eq!(valkey.to_string(), "Valkey 10.1.8");
        assert!(!valkey.is_before(7, 0));
        assert!(valkey.moves_slots_at_once() && !redis.moves_slots_at_once());
        for other in ["", "cat (GNU coreutils) 9.1", "Redis server v=", "Redis server v=7.x"] {
            assert_eq!(ServerVersion::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_that_is_none_is_named() {
        for (name, expected) in [
            ("/no/such/file", "REDIS_SERVER=/no/such/file cannot be started: No such file"),
            ("no-such-program", "REDIS_SERVER=no-such-program cannot be started: No such file"),
            ("/", "REDIS_SERVER=/ cannot be started: "),
            ("true", "REDIS_SERVER=true is neither a Redis nor a Valkey server: "),
            ("false", "REDIS_SERVER=false is neither a Redis nor a Valkey server: "),
        ] {
            let message = Program::find(Some(name.into())).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
