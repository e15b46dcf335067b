//! Credentials that change while locks are held.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lock::{Credentials, ErrorKind, Locks};
use lock_tests::{RedisServer, eventually, ms};

use crate::common::command;

const PATIENCE: Duration = Duration::from_secs(20);

/// Sets the user `billing` to have this password and no other.
async fn set_password(server: &RedisServer, password: u64) {
    let password = format!(">{password}");
    let rights = ["~*", "resetchannels", "&*", "+@all"];
    let user = ["ACL", "SETUSER", "billing", "on", "resetpass", &password];
    command(server, &[&user[..], &rights].concat()).await;
}

/// Passwords that count up: the current one, and how often it was asked for.
#[derive(Clone, Default)]
struct Vault {
    now: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Vault {
    fn credentials(&self) -> Credentials {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Credentials::new("billing", self.now.load(Ordering::Relaxed).to_string())
    }

    /// Connects with credentials that are valid for this long.
    async fn connect(&self, server: &RedisServer, valid_for: Duration) -> Locks {
        let vault = self.clone();
        let give = move || {
            let credentials = vault.credentials().valid_for(valid_for);
            async move { Ok::<_, io::Error>(credentials) }
        };
        Locks::builder().url(server.locks_url()).credentials(give).build().await.unwrap()
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// With push notices, and with a separate connection for notices.
const PROTOCOLS: [&[&str]; 2] = [&[], &["--rename-command", "HELLO", ""]];

#[tokio::test(flavor = "multi_thread")]
async fn each_connect_asks_for_those_of_the_moment() {
    for flags in PROTOCOLS {
        let server = RedisServer::builder().flags(flags.iter().copied()).start();
        let vault = Vault::default();
        set_password(&server, 0).await;
        let provider = vault.clone();
        let locks = Locks::builder()
            .url(server.locks_url())
            .credentials(move || {
                let provider = provider.clone();
                async move {
                    // The provider runs on a runtime with timers.
                    tokio::time::sleep(ms(1)).await;
                    Ok::<_, io::Error>(provider.credentials())
                }
            })
            .build()
            .await
            .unwrap();
        let held = locks.lock("held").acquire().await.unwrap();
        for password in 1..4 {
            vault.now.store(password, Ordering::Relaxed);
            set_password(&server, password).await;
            let before = vault.asked();
            command(&server, &["CLIENT", "KILL", "USER", "billing"]).await;
            locks.lock("next").acquire().await.unwrap().release().await.unwrap();
            assert!(vault.asked() > before);
        }
        // The connection for notices also works again: a waiter is woken, and does not poll.
        let waiter = tokio::spawn(locks.lock("held").wait(PATIENCE).acquire());
        eventually(PATIENCE, async || !format!("{locks:?}").contains("polling")).await;
        assert!(held.is_held());
        held.release().await.unwrap();
        waiter.await.unwrap().unwrap().release().await.unwrap();
    }
}

/// The connection stays, and the server gets the next credentials on it before the first ones
/// expire.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_outlives_its_credentials_is_told_the_next_ones() {
    for flags in PROTOCOLS {
        let server = RedisServer::builder().flags(flags.iter().copied()).start();
        let vault = Vault::default();
        set_password(&server, 0).await;
        let locks = vault.connect(&server, ms(500)).await;
        let before = vault.asked();
        let connections = server.commands().await.calls("client|id");
        for password in 1..5 {
            vault.now.store(password, Ordering::Relaxed);
            set_password(&server, password).await;
            let asked = vault.asked();
            eventually(PATIENCE, async || vault.asked() > asked + 1).await;
            locks.lock("a").acquire().await.unwrap().release().await.unwrap();
        }
        assert!(vault.asked() >= before + 8);
        let counts = server.commands().await;
        assert_eq!(counts.calls("client|id"), connections, "it was made anew");
        assert!(counts.calls("auth") >= 4, "{counts:?}");
    }
}

/// The provider may return any validity time: it may be a computed number.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_may_last_for_ever_or_for_no_time() {
    for time in [Duration::MAX, Duration::ZERO] {
        let server = RedisServer::start();
        let vault = Vault::default();
        set_password(&server, 0).await;
        let began = Instant::now();
        let locks = vault.connect(&server, time).await;
        let guard = locks.lock("a").acquire().await.unwrap();
        command(&server, &["CLIENT", "KILL", "USER", "billing"]).await;
        locks.lock("b").acquire().await.unwrap().release().await.unwrap();
        let until = vault.asked() + if time.is_zero() { 5 } else { 0 };
        eventually(PATIENCE, async || vault.asked() >= until).await;
        assert!(guard.is_held());
        // Once for each connection, and ten times a second for credentials that expire at once.
        let most = 5 + 10 * (began.elapsed().as_secs() + 1);
        assert!(vault.asked() <= most, "{} within {:?}", vault.asked(), began.elapsed());
        guard.release().await.unwrap();
    }
}

/// Credentials are only renewed for the connections in use, not for each that there ever was.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_a_connection_that_is_gone() {
    let server = RedisServer::start();
    let vault = Vault::default();
    set_password(&server, 0).await;
    let locks = vault.connect(&server, ms(5000)).await;
    for _ in 0..20 {
        command(&server, &["CLIENT", "KILL", "USER", "billing"]).await;
        locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    }
    let (asked, before) = (vault.asked(), server.commands().await.calls("auth"));
    assert!(asked >= 20, "{asked}");
    eventually(PATIENCE, async || server.commands().await.calls("auth") > before).await;
    assert!(vault.asked() <= asked + 3, "{} after {asked}", vault.asked());
}

/// A failing provider never stops the keeper, and the error has its cause.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_costs_its_connect() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let refused = async |built: Result<Locks, lock::Error>, says: &str| {
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(&server.port().to_string()), "{text}");
        assert!(!format!("{error:?}").contains("no such secret") || says == "failed", "{error:?}");
        std::error::Error::source(&error).map(ToString::to_string)
    };
    let failing = Locks::builder()
        .url(server.locks_url())
        .credentials(|| async { Err::<Credentials, _>(io::Error::other("no such secret")) });
    let source = refused(failing.build().await, "failed").await;
    assert_eq!(source.as_deref(), Some("no such secret"));
    let panicking = || async { panic!("a bug of the application") };
    let panicking = Locks::builder()
        .url(server.locks_url())
        .credentials::<_, _, io::Error>(panicking)
        .build()
        .await;
    refused(panicking, "panicked").await;
    let panicking = || -> std::future::Ready<Result<Credentials, io::Error>> { panic!("at once") };
    refused(
        Locks::builder().url(server.locks_url()).credentials(panicking).build().await,
        "panicked",
    )
    .await;

    // An open connection goes on without new credentials.
    command(&server, &["CONFIG", "SET", "requirepass", "pw"]).await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let locks = Locks::builder()
        .url(format!("redis://127.0.0.1:{}/", server.port()))
        .credentials(move || {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    Ok(Credentials::new("", "pw").valid_for(ms(100)))
                } else {
                    Err(io::Error::other("no such secret"))
                }
            }
        })
        .build()
        .await
        .unwrap();
    eventually(PATIENCE, async || calls.load(Ordering::Relaxed) >= 4).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

#[test]
fn what_can_not_be_is_refused_at_once() {
    let give = || async { Ok::<_, io::Error>(Credentials::new("a", "secret")) };
    let refused = |builder: lock::LocksBuilder, says: &str| {
        let error = builder.credentials(give).build_lazy().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    };
    refused(Locks::builder().url("redis://localhost/"), "runtime");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    for url in ["redis://:secret@localhost/", "redis+sentinel://user:secret@localhost/main"] {
        refused(Locks::builder().url(url), "twice");
    }
    refused(Locks::builder().url("memory:"), "`credentials`");
    refused(Locks::builder().store(lock::store::MemoryStore::new()), "`credentials`");
    Locks::builder().url("redis://localhost:1/").credentials(give).build_lazy().unwrap();
}
