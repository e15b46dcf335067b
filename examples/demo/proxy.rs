//! A TCP proxy between a client and its server, so that their connection can be cut.

use std::{io, net::Ipv4Addr, sync::Arc};

use redis::ConnectionAddr;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixStream},
    pin, select,
    sync::watch,
};

use crate::network::Condition;

/// Forwards a port of this machine to the server, as long as its condition is open. Ends with its
/// last clone.
#[derive(Clone)]
pub(crate) struct Proxy {
    port: u16,
    server: Arc<str>,
    condition: Arc<watch::Sender<Condition>>,
}

#[derive(Clone)]
enum Server {
    Tcp(String, u16),
    Unix(std::path::PathBuf),
}

impl Proxy {
    /// Starts a proxy for this server. Returns `None` if the protocol, such as TLS, rules one out.
    pub(crate) async fn start(server: &ConnectionAddr) -> io::Result<Option<Self>> {
        let name = server.to_string().into();
        let server = match server {
            ConnectionAddr::Tcp(host, port) => Server::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Server::Unix(path.clone()),
            _ => return Ok(None),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (condition, seen) = watch::channel(Condition::Open);
        tokio::spawn(listen(listener, server, seen));
        Ok(Some(Self { port, server: name, condition: Arc::new(condition) }))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address of the proxy, which the library takes for its server's.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Puts the server's address in the place of the proxy's, in a text of the library.
    pub(crate) fn unmask(&self, text: &str) -> String {
        text.replace(&self.address(), &self.server)
    }

    /// Sets the condition, for existing connections and for new ones.
    pub(crate) fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }
}

async fn listen(listener: TcpListener, server: Server, mut condition: watch::Receiver<Condition>) {
    loop {
        // A client that gets no answer connects again and again. Accepting none of these attempts
        // leaves them to the system's backlog; otherwise each would keep a connection open here.
        let answers = *condition.borrow_and_update() != Condition::Silent;
        let connection = select! {
            accepted = listener.accept(), if answers => accepted,
            changed = condition.changed() => match changed {
                Ok(()) => continue,
                Err(_gone) => return,
            },
        };
        if let Ok((connection, _)) = connection
            && *condition.borrow() != Condition::Cut
        {
            tokio::spawn(pass_on(connection, server.clone(), condition.clone()));
        }
    }
}

async fn pass_on(client: TcpStream, server: Server, condition: watch::Receiver<Condition>) {
    // If the server refuses, the client's connection also ends.
    match server {
        Server::Tcp(host, port) => {
            if let Ok(server) = TcpStream::connect((host.as_str(), port)).await {
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                join(client, server, condition).await;
            }
        }
        Server::Unix(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                let _ = client.set_nodelay(true);
                join(client, server, condition).await;
            }
        }
    }
}

async fn join(
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    mut condition: watch::Receiver<Condition>,
) {
    let copy = copy_bidirectional(&mut client, &mut server);
    pin!(copy);
    loop {
        let now = *condition.borrow_and_update();
        if now == Condition::Cut {
            return;
        }
        select! {
            _ = &mut copy, if now == Condition::Open => return,
            changed = condition.changed() => if changed.is_err() { return },
        }
    }
}
