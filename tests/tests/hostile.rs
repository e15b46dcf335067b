//! A server with arbitrary answers: nothing breaks, and everything stays within its time limit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock::{ErrorKind, Locks};
use lock_tests::Random;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::common::ms;

/// How many servers are tried, each with answers of its own.
const SERVERS: u64 = 60;
/// Bound on everything: six requests of two seconds each, and a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// A server that accepts connections properly, and answers scripts at random from a seed.
struct Hostile {
    port: u16,
    answered: Arc<AtomicU64>,
    serving: tokio::task::JoinHandle<()>,
}

impl Hostile {
    async fn start(seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answered = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&answered);
        let serving = tokio::spawn(async move {
            let mut clients = tokio::task::JoinSet::new();
            let mut random = Random::new(seed);
            while let Ok((client, _)) = listener.accept().await {
                clients.spawn(serve(client, Random::new(random.any()), Arc::clone(&counted)));
            }
        });
        Self { port, answered, serving }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut client: TcpStream, mut random: Random, answered: Arc<AtomicU64>) {
    let mut input = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let Ok(length @ 1..) = client.read(&mut piece).await else { return };
        input.extend_from_slice(&piece[..length]);
        while let Some((words, rest)) = command(&input) {
            input = rest;
            let answer = match words[0].to_ascii_uppercase().as_str() {
                "HELLO" => b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec(),
                "EVALSHA" | "EVAL" => {
                    answered.fetch_add(1, Ordering::Relaxed);
                    any_reply(&mut random, 0)
                }
                "SUBSCRIBE" => format!(
                    ">3\r\n$9\r\nsubscribe\r\n${}\r\n{}\r\n:1\r\n",
                    words[1].len(),
                    words[1]
                )
                .into_bytes(),
                _ => b"+OK\r\n".to_vec(),
            };
            if client.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// The words of the first command, and the bytes after it.
fn command(input: &[u8]) -> Option<(Vec<String>, Vec<u8>)> {
    fn line(input: &[u8]) -> Option<(usize, &[u8])> {
        let end = input.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(&input[1..end]).unwrap().parse().unwrap();
        Some((number, &input[end + 2..]))
    }
    let (count, mut rest) = line(input)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, text) = line(rest)?;
        words.push(String::from_utf8_lossy(text.get(..length)?).into_owned());
        rest = text.get(length + 2..)?;
    }
    Some((words, rest.to_vec()))
}

/// A reply that the protocol allows, and sometimes one that it does not.
fn any_reply(random: &mut Random, depth: u32) -> Vec<u8> {
    const NUMBERS: [&str; 9] = [
        "0",
        "1",
        "2",
        "-1",
        "3",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "9007199254740991",
    ];
    const WORDS: [&str; 9] =
        ["granted", "superseded", "not yet", "running", "gone", "lost", "done", "", "\u{1f512}"];
    let number = NUMBERS[random.below(9) as usize];
    match random.below(if depth < 3 { 14 } else { 9 }) {
        0 => format!("+{number}\r\n").into_bytes(),
        1 => "-NOSCRIPT No matching script\r\n".into(),
        2 => "-ERR no\r\n".into(),
        3 => "_\r\n".into(),
        4 => format!("${}\r\n{number}\r\n", number.len()).into_bytes(),
        5 => {
            let word = WORDS[random.below(9) as usize];
            format!("${}\r\n{word}\r\n", word.len()).into_bytes()
        }
        6 => "$3\r\n\u{ff}".bytes().chain(*b"\xff\r\n").collect(),
        7 if random.one_in(6) => b"?what\r\n".to_vec(),
        7 | 8 => {
            // A number that does not fit would violate the protocol.
            let number = if number.len() > 19 { "4" } else { number };
            format!(":{number}\r\n").into_bytes()
        }
        _ => {
            let items = random.below(4);
            let mut reply = format!("*{items}\r\n").into_bytes();
            (0..items).for_each(|_| reply.extend(any_reply(random, depth + 1)));
            reply
        }
    }
}

/// Makes all kinds of calls to one server. Returns how many scripts it was asked to run.
async fn ask(seed: u64) -> u64 {
    let server = Hostile::start(seed).await;
    let locks = Locks::connect(&format!("redis://127.0.0.1:{}/", server.port)).await.unwrap();
    let patience = ms(300);
    let lock = locks.lock("a").wait(patience);
    let asked = async {
        let mut errors = Vec::new();
        match lock.acquire().await {
            Ok(guard) => {
                assert!(i64::try_from(guard.fencing_token()).is_ok(), "{}", guard.fencing_token());
                errors.extend(guard.extend(ms(100)).await.err());
                errors.extend(guard.release().await.err());
            }
            Err(error) => errors.push(error),
        }
        errors.extend(lock.try_acquire().await.err());
        errors.extend(lock.status().await.err());
        errors.extend(lock.force_release().await.err());
        let debounce = locks.debounce("a").wait(ms(10));
        // It may be told to wait for ever.
        if let Ok(outcome) = tokio::time::timeout(patience, debounce.call(|| async {})).await {
            errors.extend(outcome.err());
        }
        errors
    };
    let errors = tokio::time::timeout(BOUND, asked).await.expect("it takes for ever");
    for error in errors {
        let expected =
            [ErrorKind::Busy, ErrorKind::Lost, ErrorKind::Unavailable, ErrorKind::Rejected];
        assert!(expected.contains(&error.kind()), "{error:?}");
    }
    // The keeper is alive, and ends on command.
    tokio::time::timeout(BOUND, locks.shutdown()).await.expect("it does not end");
    assert!(locks.lock("a").acquire().await.is_err());
    server.answered.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_answers_breaks_nothing() {
    let asked: Vec<_> = (0..SERVERS).map(|seed| tokio::spawn(ask(seed))).collect();
    let mut scripts = 0;
    for (seed, asked) in asked.into_iter().enumerate() {
        scripts += asked.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(scripts > SERVERS * 5, "{scripts} answers only");
}
