//! The SQL of the documentation, on a real PostgreSQL.
//!
//! Ignored by default, because not every machine has one; `tests/run` runs it where PostgreSQL is
//! installed.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use lock::{Locks, store::MemoryStore};
use lock_tests::{Random, end_with_this_process, eventually, temporary_directory};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::ms;

/// PostgreSQL refuses to run as root; this is `nobody`.
const NOBODY: u32 = 65534;

/// A server of the test's own, on a socket in a temporary directory.
struct PostgreSql {
    programs: PathBuf,
    process: Child,
    directory: TempDir,
}

impl PostgreSql {
    fn start() -> Self {
        let programs = programs().expect("there is no PostgreSQL on this machine");
        let directory = temporary_directory("postgresql-");
        let owner = fs::metadata(directory.path()).unwrap().uid();
        if owner == 0 {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = directory.path().join("data");
        let as_owner = |program: &str| {
            let mut command = Command::new(programs.join(program));
            end_with_this_process(&mut command);
            command.current_dir(directory.path()).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            if owner == 0 {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        let made = as_owner("initdb")
            .args(["--auth=trust", "--username=lock", "--no-sync", "--locale=C", "--pgdata"])
            .arg(&data)
            .status();
        assert!(made.unwrap().success());
        let process = as_owner("postgres")
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(directory.path())
            .arg("-D")
            .arg(&data)
            .spawn()
            .unwrap();
        Self { programs, process, directory }
    }

    /// Runs statements one after another. Returns the result line of each.
    fn run(&self, sql: &str) -> Result<Vec<String>, String> {
        let mut psql = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--variable=ON_ERROR_STOP=1", "--tuples-only", "--no-align"])
            .args(["--username=lock", "--dbname=postgres", "--host"])
            .arg(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Fails if psql could not connect, which is reported below.
        let _ = psql.stdin.take().unwrap().write_all(sql.as_bytes());
        let output = psql.wait_with_output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        let process = Pid::from_child(&self.process);
        // The server stops its child processes.
        let _ = kill_process(process, Signal::QUIT);
        let _ = self.process.wait();
    }
}

/// The directory of the programs: Debian keeps a server's off the PATH.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    folders.extend(versions.map(|version| version.unwrap().path().join("bin")));
    let needed = ["initdb", "postgres", "psql"];
    folders.into_iter().find(|folder| needed.iter().all(|program| folder.join(program).exists()))
}

/// The SQL statement in a text.
fn sql_of(text: &str) -> &str {
    let (_, after) = text.split_once("```sql\n").unwrap();
    after.lines().next().unwrap().trim_start_matches("//! ")
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run runs it where there is one"]
async fn the_sql_of_the_documentation_refuses_stale_writers() {
    const WRITERS: usize = 4;
    const WRITES: u64 = 250;

    let update = sql_of(include_str!("../../lock/src/fenced.rs"));
    assert_eq!(update, sql_of(include_str!("../../README.md")));
    let server = PostgreSql::start();
    eventually(ms(20_000), async || server.run("SELECT 1").map(drop)).await;
    let table = "
        CREATE TABLE ledger (id text PRIMARY KEY, balance bigint, fence bigint NOT NULL);
        INSERT INTO ledger VALUES ('a', 0, 0);
        CREATE TABLE seen (place serial, fence bigint);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO seen (fence) VALUES (NEW.fence); RETURN NEW; END $$;
        CREATE TRIGGER note AFTER UPDATE ON ledger FOR EACH ROW EXECUTE FUNCTION note();";
    server.run(table).unwrap();
    let prepare = format!("PREPARE write (bigint, bigint, text) AS {update};");
    let write = |balance: u64, token: u64| format!("EXECUTE write ({balance}, {token}, 'a');");

    // A holder that does not know yet that it has lost the lock.
    let locks = Locks::builder().store(MemoryStore::new()).build().await.unwrap();
    let stale = locks.lock("ledger").acquire().await.unwrap();
    locks.lock("ledger").force_release().await.unwrap();
    let holder = locks.lock("ledger").acquire().await.unwrap();
    let tokens = [&holder, &stale, &holder].map(lock::LockGuard::fencing_token);
    let writes: String = (1..).zip(tokens).map(|(balance, token)| write(balance, token)).collect();
    let done = server.run(&format!("{prepare}{writes}")).unwrap();
    assert_eq!(done, ["PREPARE", "UPDATE 1", "UPDATE 0", "UPDATE 1"]);
    assert_eq!(server.run("SELECT balance FROM ledger").unwrap(), ["3"]);

    // Writers at the same time, each with tokens of all ages.
    let first = tokens[0] + 1;
    let write_at_random = |seed| {
        let mut random = Random::new(seed);
        let writes = (0..WRITES).map(|_| write(0, first + random.below(1000)));
        server.run(&format!("{prepare}{}", writes.collect::<String>())).unwrap()
    };
    let accepted: usize = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|seed| scope.spawn(move || write_at_random(seed as u64))).collect();
        let done = writers.into_iter().flat_map(|writer| writer.join().unwrap());
        done.filter(|done| done == "UPDATE 1").count()
    });
    let seen = server.run("SELECT fence FROM seen ORDER BY place").unwrap();
    let seen: Vec<u64> = seen.iter().map(|fence| fence.parse().unwrap()).collect();
    assert_eq!(seen.len(), accepted + 2);
    assert!(seen.is_sorted(), "a stale write was accepted: {seen:?}");
    assert!((WRITERS..WRITERS * WRITES as usize).contains(&accepted), "{accepted} accepted");
}
