//! The bus between the nodes of a cluster, led over relays, so that a node can be cut off.
//!
//! Each node announces the port of a relay. Each node opens a link of its own to each other one, so
//! there are two links between two nodes, and both have to be cut. A relay knows its target; the
//! first message on a link names its sender.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, TcpListener},
    thread::{self, JoinHandle},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{self, TcpStream},
    runtime, select,
    sync::{mpsc, watch},
};

use super::nodes;
use crate::{ports::Port, server::bus_port};

/// The beginning of a message, up to the end of its sender's name; the same in every version.
const HEAD: usize = 80;
/// The offset of the name.
const NAME: usize = 40;

/// The relays of one cluster, on a thread and a runtime of their own. Nodes are named by their ports.
#[derive(Debug)]
pub(super) struct Bus {
    cut_off: watch::Sender<BTreeSet<u16>>,
    /// Taken in the destructor: the thread ends when it is gone.
    relays: Option<mpsc::UnboundedSender<Relay>>,
    /// Taken in the destructor.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Relay {
    listener: TcpListener,
    _port: Port,
    /// The node that it leads to.
    target: u16,
}

impl Bus {
    pub(super) fn start() -> Self {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let (relays, mut new) = mpsc::unbounded_channel::<Relay>();
        let cut_off = watch::Sender::default();
        let cuts = cut_off.subscribe();
        let run = async move {
            while let Some(relay) = new.recv().await {
                tokio::spawn(relay.run(cuts.clone()));
            }
        };
        let thread = thread::Builder::new()
            .name("bus".to_owned())
            .spawn(move || runtime.block_on(run))
            .expect("a thread can be started");
        Self { cut_off, relays: Some(relays), thread: Some(thread) }
    }

    /// Adds a relay to one more node, and returns its port for the others.
    pub(super) fn lead_to(&self, target: u16) -> u16 {
        let (port, listener) = loop {
            let port = Port::claim();
            // Binding fails if a program that does not take part in the claims has taken the port
            // in between.
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())) {
                break (port, listener);
            }
        };
        listener.set_nonblocking(true).expect("a socket can be told not to block");
        let number = port.number();
        let relays = self.relays.as_ref().expect("only the destructor takes it");
        let relay = Relay { listener, _port: port, target };
        relays.send(relay).expect("the thread runs until the destructor");
        number
    }

    /// Whether a node is separated from all others.
    pub(super) fn is_cut_off(&self, node: u16) -> bool {
        self.cut_off.borrow().contains(&node)
    }

    /// Separates a node from all others, or ends that.
    pub(super) fn cut_off(&self, node: u16, wanted: bool) {
        self.cut_off.send_modify(|nodes| {
            if wanted {
                nodes.insert(node);
            } else {
                nodes.remove(&node);
            }
        });
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.relays.take());
        if let Some(thread) = self.thread.take() {
            // A panic on that thread was printed there; a second one here would abort.
            let _ = thread.join();
        }
    }
}

impl Relay {
    async fn run(self, cuts: watch::Receiver<BTreeSet<u16>>) {
        let listener = net::TcpListener::from_std(self.listener);
        let listener = listener.expect("a socket that listens can be waited for");
        loop {
            if let Ok((link, _)) = listener.accept().await {
                // If a link breaks, its node opens it again.
                tokio::spawn(lead(link, self.target, cuts.clone()));
            }
        }
    }
}

/// Leads one link to this node, until one end of it is cut off. After that nothing arrives, and
/// neither end is told: the link stays open until the cut ends.
async fn lead(
    mut link: TcpStream,
    target: u16,
    mut cuts: watch::Receiver<BTreeSet<u16>>,
) -> io::Result<()> {
    let mut head = [0; HEAD];
    link.read_exact(&mut head).await?;
    let source = nodes::port_of(&head[NAME..]).ok_or(io::ErrorKind::InvalidData)?;
    let is_cut = |nodes: &BTreeSet<u16>| nodes.contains(&source) || nodes.contains(&target);
    let leading = async {
        let mut onward = TcpStream::connect((Ipv4Addr::LOCALHOST, bus_port(target))).await?;
        link.set_nodelay(true)?;
        onward.set_nodelay(true)?;
        onward.write_all(&head).await?;
        copy_bidirectional(&mut link, &mut onward).await
    };
    select! {
        biased;
        _ = cuts.wait_for(is_cut) => {}
        led = leading => return led.map(drop),
    }
    // The far end sees its link close, as the near one would after a while without an answer.
    let _ = cuts.wait_for(|nodes| !is_cut(nodes)).await;
    Ok(())
}
