//! A page on which you can watch locks and break them, to see in a minute what leases, fencing
//! tokens and the queue are for.
//!
//!     cargo run --example demo
//!
//! prints the address of the page. Open it twice, and let the two pages contend. The locks are in
//! the memory of this process. Several copies of the demo that share a server see each other:
//!
//!     LOCK_URL=redis://127.0.0.1/ cargo run --example demo -- --port 4081
//!
//! The URL may name Sentinels or a Cluster (`redis+sentinel://h1,h2/name`,
//! `redis+cluster://h1,h2`). Then stop a server, and see on the page which one the library uses
//! next.
//!
//! The demo uses only the public API of the library. From the page to the store:
//!
//! - `page/`: the page in the browser, which draws the views that it receives, and sends commands
//! - `server`: HTTP, and the stream of views, which `view` builds
//! - `instance`: one open page, which stands for one instance of a service. `life` is the code that
//!   runs in it, `command` the commands from the page, `answer` the library's answers, `viewer` the
//!   pages that are connected
//! - `network`: the connection between an instance and its store, which can be cut
//! - `servers`: the library's reports about its connections
//! - `journal`: the events of all copies of the demo; `board` is the state that follows from them

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

  --port PORT    the page is at http://127.0.0.1:PORT/ (default 4080; 0: any free port)
  LOCK_URL       where the locks are, instead of in memory: redis://.., rediss://.., unix://..,
                 redis+sentinel://.. or redis+cluster://..";

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime cannot start: {error}")),
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
            format!("cannot listen on port {port}: {error}")
        }
    })?;
    let address_of_page = listener.local_addr().map_err(|error| error.to_string())?;
    let process = Process::start(address, Servers::listen())?;
    println!("http://{address_of_page}/  (locks: {}; Ctrl-C stops it)", process.store());
    server::serve(listener, process).await.map_err(|error| error.to_string())
}

/// Returns the port that the arguments ask for; `None` if they ask for help.
fn port(mut arguments: impl Iterator<Item = String>) -> Result<Option<u16>, String> {
    let mut port = 4080;
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--port" => arguments.next().ok_or(format!("`--port` needs a port\n\n{USAGE}"))?,
            other => match other.strip_prefix("--port=") {
                Some(value) => value.to_owned(),
                None => return Err(format!("unknown argument `{other}`\n\n{USAGE}")),
            },
        };
        port = value.parse().map_err(|_| format!("`{value}` is not a port (0 to 65535)"))?;
    }
    Ok(Some(port))
}
