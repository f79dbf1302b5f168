//! The service under test. It does no work beyond the computing and waiting in its options.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::work::compute;
use crate::proto::bench_server::Bench;
use crate::proto::{Blob, DownloadRequest, Total};

/// The service, with the computing and waiting time of its unary calls.
#[derive(Clone, Copy)]
pub(super) struct Service {
    pub(super) computes: Duration,
    pub(super) waits: Duration,
}

#[tonic::async_trait]
impl Bench for Service {
    type DownloadStream = BoxStream<'static, Result<Blob, Status>>;
    type ReceiptsStream = BoxStream<'static, Result<Total, Status>>;
    type PingPongStream = Streaming<Blob>;

    async fn unary(&self, request: Request<Blob>) -> Result<Response<Blob>, Status> {
        if !self.computes.is_zero() {
            compute(self.computes);
        }
        if !self.waits.is_zero() {
            tokio::time::sleep(self.waits).await;
        }
        Ok(Response::new(request.into_inner()))
    }

    async fn download(
        &self,
        request: Request<DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let DownloadRequest { size, count } = request.into_inner();
        let data = Bytes::from(vec![7; size as usize]);
        let blobs = stream::iter((0..count).map(move |_| Ok(Blob { data: data.clone() })));
        Ok(Response::new(blobs.boxed()))
    }

    async fn upload(&self, request: Request<Streaming<Blob>>) -> Result<Response<Total>, Status> {
        let mut blobs = request.into_inner();
        let mut bytes = 0;
        while let Some(blob) = blobs.message().await? {
            bytes += blob.data.len() as u64;
        }
        Ok(Response::new(Total { bytes }))
    }

    async fn receipts(
        &self,
        request: Request<Streaming<Blob>>,
    ) -> Result<Response<Self::ReceiptsStream>, Status> {
        let mut bytes = 0;
        let totals = request.into_inner().map(move |blob| {
            bytes += blob?.data.len() as u64;
            Ok(Total { bytes })
        });
        Ok(Response::new(totals.boxed()))
    }

    async fn ping_pong(
        &self,
        request: Request<Streaming<Blob>>,
    ) -> Result<Response<Self::PingPongStream>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}
