//! Streams that are held open during measurements.

use std::time::Instant;

use anyhow::Result;
use futures::future::try_join_all;
use futures::stream;
use tonic::Streaming;

use super::channel::{Channel, Clients, blob};
use super::streams::ENDLESS;
use crate::job::Measured;
use crate::proto::{Blob, DownloadRequest};

/// The number of streams that are opened at the same time.
const OPENERS: usize = 64;

/// The held streams.
#[derive(Default)]
pub(super) struct Held(Vec<Streaming<Blob>>);

impl Held {
    /// Opens streams on which nothing is ever sent.
    pub(super) async fn idle<C: Channel>(
        &mut self,
        clients: &Clients<C>,
        streams: usize,
    ) -> Result<Measured> {
        let start = Instant::now();
        let openers = (0..OPENERS).map(|opener| {
            let clients = clients.clone();
            let opener = tokio::spawn(async move {
                let mut opened = Vec::new();
                for n in (opener..streams).step_by(OPENERS) {
                    let nothing = stream::pending::<Blob>();
                    opened.push(clients.get(n).ping_pong(nothing).await?.into_inner());
                }
                anyhow::Ok(opened)
            });
            async { opener.await? }
        });
        let opened = try_join_all(openers).await?;
        Ok(self.keep(start, opened))
    }

    /// Opens streams whose peer sends messages without end, and reads none of them.
    pub(super) async fn unread<C: Channel>(
        &mut self,
        clients: &Clients<C>,
        streams: usize,
        size: u32,
    ) -> Result<Measured> {
        let start = Instant::now();
        let request = DownloadRequest {
            size,
            count: ENDLESS,
        };
        let streams = (0..streams).map(|n| {
            let mut client = clients.get(n);
            async move { client.download(request).await.map(|r| r.into_inner()) }
        });
        let opened = try_join_all(streams).await?;
        Ok(self.keep(start, vec![opened]))
    }

    fn keep(&mut self, start: Instant, opened: Vec<Vec<Streaming<Blob>>>) -> Measured {
        let seconds = start.elapsed().as_secs_f64();
        let before = self.0.len();
        self.0.extend(opened.into_iter().flatten());
        Measured {
            count: (self.0.len() - before) as u64,
            seconds,
            ..Measured::default()
        }
    }

    /// Drops all streams and waits until a call succeeds.
    pub(super) async fn release<C: Channel>(&mut self, clients: &Clients<C>) -> Result<Measured> {
        let start = Instant::now();
        let count = std::mem::take(&mut self.0).len() as u64;
        clients.get(0).unary(blob(16)).await?;
        Ok(Measured {
            count,
            seconds: start.elapsed().as_secs_f64(),
            ..Measured::default()
        })
    }
}
