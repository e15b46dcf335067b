//! The proxy's main task: accepts connections, and ends them on command.

use std::{
    future::{pending, ready},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    select,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinHandle, yield_now},
    time::sleep,
};

use super::{
    PATIENCE, Shared,
    connection::{Handle, relay},
    faults::Faults,
};
use crate::ports::Port;

const BACKLOG: u32 = 1024;
/// The pause between two attempts at something that another process prevents for a moment.
const STEP: Duration = Duration::from_millis(10);

/// A command from the owner of a proxy. Each is answered when it is done.
#[derive(Debug)]
pub(super) enum Control {
    Reset(mpsc::Sender<()>),
    Refuse(mpsc::Sender<()>),
    Heal(mpsc::Sender<()>),
}

/// The main task's own state.
#[derive(Debug)]
pub(super) struct Listener {
    /// `None` while connections are refused.
    socket: Option<TcpListener>,
    port: Port,
    shared: Arc<Shared>,
    controls: UnboundedReceiver<Control>,
    connections: Vec<(Handle, JoinHandle<()>)>,
}

impl Listener {
    /// Listens on a free port; must be called inside a runtime.
    pub(super) fn bind(shared: Arc<Shared>) -> (Self, u16, UnboundedSender<Control>) {
        let (socket, port) = (0..100)
            .map(|_| Port::claim())
            .find_map(|port| Some((listen(&port).ok()?, port)))
            .expect("one of a hundred free ports can be listened on");
        let number = port.number();
        let (sender, controls) = unbounded_channel();
        let listener =
            Self { socket: Some(socket), port, shared, controls, connections: Vec::new() };
        (listener, number, sender)
    }

    /// Runs until the owner is gone. The connections end with the runtime.
    pub(super) async fn run(mut self) {
        loop {
            let control = select! {
                biased;
                control = self.controls.recv() => control,
                client = accept(self.socket.as_ref()) => {
                    self.take(client);
                    continue;
                }
            };
            let done = match control {
                None => return,
                Some(Control::Reset(done)) => {
                    self.reset_waiting().await;
                    self.stop(|_| true).await;
                    done
                }
                Some(Control::Refuse(done)) => {
                    // Clients that believe that they are already connected stay.
                    self.take_waiting().await;
                    self.socket = None;
                    self.wait_until_refused().await;
                    done
                }
                Some(Control::Heal(done)) => {
                    self.heal().await;
                    done
                }
            };
            // The owner may have given up waiting.
            let _ = done.send(());
        }
    }

    fn take(&mut self, client: TcpStream) {
        self.shared.accepted.send_modify(|accepted| *accepted += 1);
        self.connections.retain(|(_, task)| !task.is_finished());
        let handle = Handle::default();
        let shared = Arc::clone(&self.shared);
        let upstream_port = shared.upstream_port.load(Ordering::Relaxed);
        let task = tokio::spawn(relay(client, upstream_port, shared, handle.clone()));
        self.connections.push((handle, task));
    }

    /// A process that another test is starting holds a copy of the socket until it has become
    /// `redis-server`; only then does the kernel close the port.
    async fn wait_until_refused(&self) {
        let address = (Ipv4Addr::LOCALHOST, self.port.number());
        let mut left = PATIENCE.as_millis() / STEP.as_millis();
        while TcpStream::connect(address).await.is_ok() {
            assert!(left > 0, "another process listens on port {}", address.1);
            left -= 1;
            sleep(STEP).await;
        }
    }

    async fn heal(&mut self) {
        *self.shared.faults() = Faults::default();
        self.stop(|handle| handle.lost_bytes.load(Ordering::Relaxed)).await;
        self.shared.healed.send_modify(|healed| *healed += 1);
        let mut left = PATIENCE.as_millis() / STEP.as_millis();
        while self.socket.is_none() {
            match listen(&self.port) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => {
                    assert!(left > 0, "port {} is taken: {error}", self.port.number());
                    left -= 1;
                    sleep(STEP).await;
                }
            }
        }
    }

    /// Resets the connections that `is_meant` selects, and waits until they are closed.
    async fn stop(&mut self, is_meant: impl Fn(&Handle) -> bool) {
        let (meant, others) = std::mem::take(&mut self.connections)
            .into_iter()
            .partition(|(handle, _)| is_meant(handle));
        self.connections = others;
        let meant: Vec<(Handle, JoinHandle<()>)> = meant;
        for (handle, _) in &meant {
            handle.stop.cancel();
        }
        for (_, task) in meant {
            task.await.expect("a connection does not panic");
        }
    }

    async fn take_waiting(&mut self) {
        for client in self.waiting().await {
            self.take(client);
        }
    }

    async fn reset_waiting(&mut self) {
        for client in self.waiting().await {
            self.shared.accepted.send_modify(|accepted| *accepted += 1);
            let _ = client.set_zero_linger();
        }
    }

    /// The clients that the kernel has connected and the proxy has not accepted yet.
    async fn waiting(&self) -> Vec<TcpStream> {
        // Lets the runtime get the kernel's events first.
        yield_now().await;
        let mut clients = Vec::new();
        loop {
            select! {
                biased;
                client = accept(self.socket.as_ref()) => clients.push(client),
                () = ready(()) => return clients,
            }
        }
    }
}

fn listen(port: &Port) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The kernel may still know connections of the previous listener.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port.number())))?;
    socket.listen(BACKLOG)
}

async fn accept(socket: Option<&TcpListener>) -> TcpStream {
    let Some(socket) = socket else {
        return pending().await;
    };
    loop {
        // An error concerns one client that has gone again.
        if let Ok((client, _)) = socket.accept().await {
            return client;
        }
    }
}
