//! A page on which locks can be watched, and broken: what a lease, a fencing token and the queue are
//! for, in a minute.
//!
//!     cargo run --example demo
//!
//! prints the address of the page; open it twice, and let the two contend. Its locks are in memory,
//! so they are those of this process. Several copies of the demo that share a server see each other:
//!
//!     LOCK_URL=redis://127.0.0.1/ cargo run --example demo -- --port 4081
//!
//! The URL may name Sentinels or a Cluster (`redis+sentinel://h1,h2/name`, `redis+cluster://h1,h2`). Stop
//! a server then, and see on the page which one the library goes on with.
//!
//! It uses the public API of the library only. From the page to the store:
//!
//! - `page/`: what the browser gets; it draws what it is told, and sends commands
//! - `server`: HTTP, and the stream of what the page is to show, which `view` puts together
//! - `instance`: one open page, which stands for one instance of a service; `life` is what runs in it,
//!   `command` what a page can ask of it, `answer` what it shows, `viewer` whether a page is there
//! - `network`: what lies between an instance and its store, and can be cut
//! - `servers`: what the library reports of its connections
//! - `journal`: tells all copies what has happened; `board` is what follows from that

mod answer;
mod board;
mod command;
mod instance;
mod journal;
mod ledger;
mod life;
mod network;
mod process;
mod proxy;
mod server;
mod servers;
mod view;
mod viewer;

use std::{env, io::ErrorKind, process::ExitCode};

use tokio::net::TcpListener;

use crate::{network::Address, process::Process, servers::Servers};

const USAGE: &str = "usage: cargo run --example demo -- [--port PORT]

  --port PORT    the page is at http://127.0.0.1:PORT/ (4080; 0: a port that is free)
  LOCK_URL       redis://.., rediss://.., unix://.., redis+sentinel://.. or redis+cluster://..:
                 the locks are there, not in memory";

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("demo: {why}");
    ExitCode::FAILURE
}

async fn run() -> Result<(), String> {
    let Some(port) = port(env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let address = match env::var("LOCK_URL") {
        Ok(url) => Address::parse(&url)?,
        Err(_) => Address::memory(),
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| {
        if error.kind() == ErrorKind::AddrInUse {
            format!("port {port} is taken: choose another with `--port`, or `--port 0`")
        } else {
            format!("no connections are accepted on port {port}: {error}")
        }
    })?;
    let address_of_page = listener.local_addr().map_err(|error| error.to_string())?;
    let process = Process::start(address, Servers::listen())?;
    println!("http://{address_of_page}/  (locks: {}; Ctrl-C ends it)", process.store());
    server::serve(listener, process).await.map_err(|error| error.to_string())
}

/// The port that the arguments ask for; `None` if they ask for help.
fn port(mut arguments: impl Iterator<Item = String>) -> Result<Option<u16>, String> {
    let mut port = 4080;
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--port" => arguments.next().ok_or(format!("`--port` lacks its port\n\n{USAGE}"))?,
            other => match other.strip_prefix("--port=") {
                Some(value) => value.to_owned(),
                None => return Err(format!("`{other}` is not known\n\n{USAGE}")),
            },
        };
        port = value.parse().map_err(|_| format!("`{value}` is not a port: 0 to 65535"))?;
    }
    Ok(Some(port))
}
