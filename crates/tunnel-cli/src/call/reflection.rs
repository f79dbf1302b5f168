//! The descriptors of a server, from its own reflection service.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::try_join_all;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::connect::KeyChannel;

/// Both versions have the same messages.
const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// A client of the reflection service.
#[derive(Clone, Debug)]
pub(crate) struct Reflection {
    channel: KeyChannel,
    headers: MetadataMap,
    path: &'static str,
}

impl Reflection {
    /// Finds the version that the server has.
    ///
    /// # Errors
    ///
    /// The server has no reflection, or a [`Status`] of the call.
    pub(crate) async fn new(channel: KeyChannel, headers: MetadataMap) -> Result<Self> {
        for path in [V1, V1_ALPHA] {
            let reflection = Self {
                channel: channel.clone(),
                headers: headers.clone(),
                path,
            };
            match reflection.services().await {
                Ok(_) => return Ok(reflection),
                Err(status) if status.code() == Code::Unimplemented => {}
                Err(status) => return Err(status.into()),
            }
        }
        bail!("the server has no reflection service: give the descriptors with --protoset FILE")
    }

    async fn ask(&self, question: MessageRequest) -> Result<MessageResponse, Status> {
        let mut request = Request::new(tokio_stream::once(ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        }));
        *request.metadata_mut() = self.headers.clone();
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        client.ready().await?;
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let path = PathAndQuery::from_static(self.path);
        let response = client.streaming(request, path, codec).await?;
        let answer = response.into_inner().message().await?;
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::ErrorResponse(error)) => Err(Status::new(
                Code::from_i32(error.error_code),
                error.error_message,
            )),
            Some(answer) => Ok(answer),
            None => Err(Status::internal("reflection did not answer")),
        }
    }

    /// The names of the services, in alphabetical order.
    pub(crate) async fn services(&self) -> Result<Vec<String>, Status> {
        match self
            .ask(MessageRequest::ListServices(String::new()))
            .await?
        {
            MessageResponse::ListServicesResponse(list) => {
                let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
                names.sort();
                Ok(names)
            }
            _ => Err(Status::internal("reflection gave another answer")),
        }
    }

    async fn files(&self, question: MessageRequest) -> Result<Vec<FileDescriptorProto>> {
        let MessageResponse::FileDescriptorResponse(files) = self.ask(question).await? else {
            bail!("reflection gave another answer");
        };
        let files = files.file_descriptor_proto.iter();
        let files = files.map(|bytes| FileDescriptorProto::decode(bytes.as_slice()));
        let files: Result<_, _> = files.collect();
        files.context("reflection gave a file descriptor that cannot be read")
    }

    async fn file(&self, name: &str) -> Result<Vec<FileDescriptorProto>> {
        let found = self.files(MessageRequest::FileByFilename(name.to_owned()));
        match found.await {
            Ok(files) => Ok(files),
            // Many servers do not have Google's own.
            Err(error) => match DescriptorPool::global().get_file_by_name(name) {
                Some(file) => Ok(vec![file.file_descriptor_proto().clone()]),
                None => Err(not_found(name, error)),
            },
        }
    }

    /// The descriptors of a symbol, with all that they refer to.
    pub(crate) async fn symbol(&self, symbol: &str) -> Result<DescriptorPool> {
        let question = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let found = self.files(question).await;
        let found = found.map_err(|error| not_found(symbol, error))?;
        let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
        let mut fresh = found;
        loop {
            for file in fresh {
                files.insert(file.name().to_owned(), file);
            }
            let wanted = files.values().flat_map(|file| file.dependency.iter());
            let mut missing: Vec<_> = wanted.filter(|name| !files.contains_key(*name)).collect();
            missing.sort();
            missing.dedup();
            if missing.is_empty() {
                break;
            }
            let answers = try_join_all(missing.iter().map(|name| self.file(name))).await?;
            for (name, answer) in missing.iter().zip(&answers) {
                if !answer.iter().any(|file| file.name() == **name) {
                    bail!("reflection gave another file than {name}");
                }
            }
            fresh = answers.concat();
        }
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files.into_values())
            .map_err(|error| anyhow!("the descriptors of {symbol} do not fit together: {error}"))?;
        Ok(pool)
    }
}

/// Names what the server does not know. Other errors stay as they are.
fn not_found(name: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Status>() {
        Some(status) if status.code() == Code::NotFound => {
            anyhow!("the server's reflection does not know {name}")
        }
        _ => error,
    }
}
