//! A TCP forwarder between two programs, whose links can be made silent or cut.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::owner;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are forwarded.
    #[default]
    Pass,
    /// They wait. Connections stay open, and new ones are accepted: as in a network that loses all packets.
    Silent,
    /// Connections are closed, and new ones as soon as they are accepted.
    Cut,
}

/// The modes of links, by the process that has connected.
#[derive(Clone, Debug, Default)]
struct Modes {
    all: Mode,
    of_process: HashMap<u32, Mode>,
}

impl Modes {
    fn of(&self, process: Option<u32>) -> Mode {
        let own = process.and_then(|process| self.of_process.get(&process));
        own.copied().unwrap_or(self.all)
    }
}

/// A forwarder. It ends when it is dropped.
pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    modes: watch::Sender<Modes>,
    _tasks: JoinSet<()>,
}

impl Forwarder {
    /// Forwards to an address. Nothing needs to listen there yet.
    pub(crate) async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("a forwarder cannot listen")?;
        let address = listener.local_addr()?;
        let (modes, receiver) = watch::channel(Modes::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, receiver));
        Ok(Self {
            address,
            modes,
            _tasks: tasks,
        })
    }

    /// Sets the mode of all links.
    pub(crate) fn set(&self, mode: Mode) {
        let all = Modes {
            all: mode,
            of_process: HashMap::new(),
        };
        self.modes.send_replace(all);
    }

    /// Sets the mode of the links that a process has opened or opens.
    pub(crate) fn set_for(&self, process: u32, mode: Mode) {
        self.modes.send_modify(|modes| {
            modes.of_process.insert(process, mode);
        });
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, modes: watch::Receiver<Modes>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, from)) = accepted {
                    links.spawn(link(stream, from, target, modes.clone()));
                }
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// Waits while a link is silent. `None` if it is cut.
async fn may_pass(modes: &mut watch::Receiver<Modes>, process: Option<u32>) -> Option<()> {
    let decided = modes.wait_for(|modes| modes.of(process) != Mode::Silent);
    match decided.await.ok()?.of(process) {
        Mode::Pass => Some(()),
        _ => None,
    }
}

async fn link(
    near: TcpStream,
    from: SocketAddr,
    target: SocketAddr,
    mut modes: watch::Receiver<Modes>,
) {
    let process = owner::of(from);
    if may_pass(&mut modes, process).await.is_none() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // When one direction has ended the other one is of no use to gRPC.
    tokio::select! {
        () = copy(near_in, far_out, modes.clone(), process) => {}
        () = copy(far_in, near_out, modes, process) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Modes>,
    process: Option<u32>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if may_pass(&mut modes, process).await.is_none() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = modes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let count = match read {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // What was read before the link became silent waits with the rest.
        if may_pass(&mut modes, process).await.is_none()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// An echo server, and a connection to it through a forwarder.
    async fn connected() -> (Forwarder, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let forwarder = Forwarder::to(target).await.expect("listens");
        let stream = TcpStream::connect(forwarder.address).await;
        (forwarder, stream.expect("connects"))
    }

    async fn says(stream: &mut TcpStream, byte: u8) {
        stream.write_all(&[byte]).await.expect("is written");
        assert_eq!(hears(stream).await, Some(byte));
    }

    async fn hears(stream: &mut TcpStream) -> Option<u8> {
        timeout(LONG, stream.read_u8()).await.expect("in time").ok()
    }

    #[tokio::test]
    async fn a_silent_link_holds_bytes_until_it_passes_again() {
        let (forwarder, mut stream) = connected().await;
        says(&mut stream, 1).await;
        forwarder.set(Mode::Silent);
        stream.write_all(&[2]).await.expect("is written");
        let heard = timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(heard.is_err(), "{heard:?}");
        forwarder.set(Mode::Pass);
        assert_eq!(hears(&mut stream).await, Some(2));
    }

    #[tokio::test]
    async fn a_cut_link_ends_and_no_new_one_lives() {
        let (forwarder, mut stream) = connected().await;
        says(&mut stream, 1).await;
        forwarder.set(Mode::Cut);
        assert_eq!(hears(&mut stream).await, None);
        let new = TcpStream::connect(forwarder.address).await;
        assert_eq!(hears(&mut new.expect("is accepted")).await, None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_links_of_one_process_are_cut_alone() {
        let (forwarder, mut stream) = connected().await;
        says(&mut stream, 1).await;
        forwarder.set_for(1, Mode::Cut);
        says(&mut stream, 2).await;
        forwarder.set_for(std::process::id(), Mode::Cut);
        assert_eq!(hears(&mut stream).await, None);
    }
}
