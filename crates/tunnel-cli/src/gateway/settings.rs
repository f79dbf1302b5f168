//! The settings of a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::settings::with_file;
use crate::tunnels::KEY_METADATA;

/// Settings of a gateway. A flag `--agents-listen` is `agents-listen` in the file and TUNNEL_AGENTS_LISTEN in the
/// environment. A flag wins over the environment, and the environment over the file.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where agents dial. Default: 127.0.0.1:7000.
    #[arg(
        long,
        env = "TUNNEL_AGENTS_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Listeners"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agents_listen: Option<SocketAddr>,
    /// Where gRPC clients dial; may be the same as for agents. Default: 127.0.0.1:7001.
    #[arg(
        long,
        env = "TUNNEL_CLIENTS_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Listeners"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients_listen: Option<SocketAddr>,
    /// Where the admin API answers. Default: 127.0.0.1:7002.
    #[arg(
        long,
        env = "TUNNEL_ADMIN_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Listeners"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Where /metrics, /healthz and /readyz answer over HTTP. Default: 127.0.0.1:7003.
    #[arg(
        long,
        env = "TUNNEL_HTTP_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Listeners"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_listen: Option<SocketAddr>,
    /// The listener for agents is behind a TCP balancer that begins each connection with a header of the PROXY protocol
    /// (version 1 or 2). Nobody else may be able to reach it: the header is believed.
    #[arg(long, env = "TUNNEL_AGENTS_PROXY_PROTOCOL", help_heading = "Listeners")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) agents_proxy_protocol: bool,
    /// The same for clients.
    #[arg(
        long,
        env = "TUNNEL_CLIENTS_PROXY_PROTOCOL",
        help_heading = "Listeners"
    )]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) clients_proxy_protocol: bool,

    /// The certificate (PEM) of the listeners for agents and for clients. Turns TLS on. It is read again when it
    /// changes.
    #[arg(
        long,
        env = "TUNNEL_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        help_heading = "TLS"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[arg(
        long,
        env = "TUNNEL_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "TLS"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Certificates (PEM) that revoke client certificates: a CRL.
    #[arg(long, env = "TUNNEL_CRL", value_name = "FILE", help_heading = "TLS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) crl: Option<PathBuf>,

    /// Agents: the CA (PEM) of their certificates. The key of an agent is the name in its certificate.
    #[arg(
        long,
        env = "TUNNEL_AGENTS_CA",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agents_ca: Option<PathBuf>,
    /// Agents: which name of a certificate is the key. Default: san.
    #[arg(
        long,
        env = "TUNNEL_AGENTS_NAME",
        value_name = "RULE",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agents_name: Option<Name>,
    /// Agents: a file of tokens, a line each, from `tunnel token new`. The key is the name of the token.
    #[arg(
        long,
        env = "TUNNEL_AGENTS_TOKENS",
        value_name = "FILE",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agents_tokens: Option<PathBuf>,
    /// Agents: the public keys of the issuer of their JWTs (PEM or a JWKS).
    #[arg(
        long,
        env = "TUNNEL_AGENTS_JWT_KEYS",
        value_name = "FILE",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agents_jwt_keys: Option<PathBuf>,
    /// Agents: the claim of a JWT that is the key. Default: sub.
    #[arg(
        long,
        env = "TUNNEL_AGENTS_JWT_CLAIM",
        value_name = "CLAIM",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agents_jwt_claim: Option<String>,
    /// Agents are believed whatever key they claim, and clients may call every key. For a trusted network only.
    #[arg(long, env = "TUNNEL_INSECURE_KEYS", help_heading = "Agents")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure_keys: bool,

    /// Enrolment: a file of one-time tokens, from `tunnel token new KEY`. An agent gets its certificate for one.
    #[arg(
        long,
        env = "TUNNEL_ENROLL_TOKENS",
        value_name = "FILE",
        requires = "enroll_ca_key",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enroll_tokens: Option<PathBuf>,
    /// Enrolment: the private key (PEM) of agents-ca, which signs the certificates.
    #[arg(
        long,
        env = "TUNNEL_ENROLL_CA_KEY",
        value_name = "FILE",
        requires = "enroll_tokens",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enroll_ca_key: Option<PathBuf>,
    /// Enrolment: how long the certificates are valid, in days. Default: 90.
    #[arg(
        long,
        env = "TUNNEL_ENROLL_DAYS",
        value_name = "DAYS",
        help_heading = "Agents"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enroll_days: Option<u32>,

    /// Clients: the CA (PEM) of their certificates.
    #[arg(
        long,
        env = "TUNNEL_CLIENTS_CA",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients_ca: Option<PathBuf>,
    /// Clients: which name of a certificate is theirs. Default: cn.
    #[arg(
        long,
        env = "TUNNEL_CLIENTS_NAME",
        value_name = "RULE",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients_name: Option<Name>,
    /// Clients: a file of tokens, a line each, from `tunnel token new`.
    #[arg(
        long,
        env = "TUNNEL_CLIENTS_TOKENS",
        value_name = "FILE",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients_tokens: Option<PathBuf>,
    /// Clients: the public keys of the issuer of their JWTs (PEM or a JWKS).
    #[arg(
        long,
        env = "TUNNEL_CLIENTS_JWT_KEYS",
        value_name = "FILE",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients_jwt_keys: Option<PathBuf>,
    /// Clients: the claim of a JWT that is their name. Default: sub.
    #[arg(
        long,
        env = "TUNNEL_CLIENTS_JWT_CLAIM",
        value_name = "CLAIM",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients_jwt_claim: Option<String>,
    /// Who may call which keys and methods (TOML). Without it every client that was identified may call everything.
    #[arg(
        long,
        env = "TUNNEL_ACCESS",
        value_name = "FILE",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access: Option<PathBuf>,
    /// The metadata in which a client names a key. Default: tunnel-key.
    #[arg(
        long,
        env = "TUNNEL_KEY_METADATA",
        value_name = "NAME",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_metadata: Option<String>,
    /// A client may also name a key by the authority KEY.SUFFIX.
    #[arg(
        long,
        env = "TUNNEL_AUTHORITY_SUFFIX",
        value_name = "SUFFIX",
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority_suffix: Option<String>,
    /// The origins of web pages that may call over gRPC-Web, separated by commas: `https://app.example`, or `*`.
    /// Default: none.
    #[arg(
        long,
        env = "TUNNEL_WEB_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "Clients"
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) web_origins: Vec<String>,

    /// The issuer that a JWT must name, of agents and clients.
    #[arg(
        long,
        env = "TUNNEL_JWT_ISSUER",
        value_name = "ISSUER",
        help_heading = "Tokens"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jwt_issuer: Option<String>,
    /// The audience that a JWT must name, of agents and clients.
    #[arg(
        long,
        env = "TUNNEL_JWT_AUDIENCE",
        value_name = "AUDIENCE",
        help_heading = "Tokens"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jwt_audience: Option<String>,
    /// The admin API: a file of tokens, a line each. Needed unless it listens on a loopback address.
    #[arg(
        long,
        env = "TUNNEL_ADMIN_TOKENS",
        value_name = "FILE",
        help_heading = "Tokens"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_tokens: Option<PathBuf>,

    /// Tunnels in all. Default: 100,000.
    #[arg(
        long,
        env = "TUNNEL_MAX_TUNNELS",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tunnels: Option<usize>,
    /// Tunnels of one key. Default: 4.
    #[arg(
        long,
        env = "TUNNEL_MAX_TUNNELS_OF_KEY",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tunnels_of_key: Option<usize>,
    /// Tunnels of one address. Default: 1,000.
    #[arg(
        long,
        env = "TUNNEL_MAX_TUNNELS_OF_ADDRESS",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tunnels_of_address: Option<usize>,
    /// TLS handshakes at once at each listener. Default: 256.
    #[arg(
        long,
        env = "TUNNEL_MAX_HANDSHAKES",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_handshakes: Option<usize>,
    /// Openings of tunnels at once. More are refused, and told when to come back. Default: 100 for each core.
    #[arg(
        long,
        env = "TUNNEL_MAX_OPENINGS",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_openings: Option<usize>,
    /// Memory for the messages and calls of all tunnels, in MiB. Default: 1,024.
    #[arg(
        long,
        env = "TUNNEL_MEMORY_BUDGET",
        value_name = "MIB",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_budget: Option<usize>,
    /// Calls in flight to one key. Default: 1,000.
    #[arg(
        long,
        env = "TUNNEL_MAX_CALLS_OF_KEY",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_calls_of_key: Option<usize>,
    /// Calls a second to one key, with a burst of as many. Default: no limit.
    #[arg(
        long,
        env = "TUNNEL_CALLS_PER_SECOND_OF_KEY",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calls_per_second_of_key: Option<u32>,
    /// Bytes a second to and from one key, with a burst of as many; calls wait. Default: no limit.
    #[arg(
        long,
        env = "TUNNEL_BYTES_PER_SECOND_OF_KEY",
        value_name = "N",
        help_heading = "Limits"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_second_of_key: Option<u32>,

    /// The directory that the gateways of a fleet share: URLs of etcd, separated by commas. Default: none, for a gateway
    /// that is alone.
    #[arg(
        long,
        env = "TUNNEL_ETCD",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) etcd: Vec<String>,
    /// The user of etcd. Default: none.
    #[arg(
        long,
        env = "TUNNEL_ETCD_USER",
        value_name = "NAME",
        requires = "etcd_password_file",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) etcd_user: Option<String>,
    /// A file with the user's password.
    #[arg(
        long,
        env = "TUNNEL_ETCD_PASSWORD_FILE",
        value_name = "FILE",
        requires = "etcd_user",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) etcd_password_file: Option<PathBuf>,
    /// The certificates (PEM) that etcd's must lead to. Default: those of the system.
    #[arg(
        long,
        env = "TUNNEL_ETCD_CA",
        value_name = "FILE",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// The certificate (PEM) for etcd, for mutual TLS.
    #[arg(
        long,
        env = "TUNNEL_ETCD_CERT",
        value_name = "FILE",
        requires = "etcd_key",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) etcd_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(
        long,
        env = "TUNNEL_ETCD_KEY",
        value_name = "FILE",
        requires = "etcd_cert",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) etcd_key: Option<PathBuf>,
    /// The name of the fleet. Several fleets can share an etcd. Default: default.
    #[arg(
        long,
        env = "TUNNEL_FLEET",
        value_name = "NAME",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fleet: Option<String>,
    /// The name of this gateway: another one for each, and the same after each start. Default: the first label of
    /// the machine's name.
    #[arg(long, env = "TUNNEL_NAME", value_name = "NAME", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Where the other gateways dial. Default: 127.0.0.1:7004.
    #[arg(
        long,
        env = "TUNNEL_HOP_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hop_listen: Option<SocketAddr>,
    /// The URL by which the other gateways dial it: https://HOST:PORT. Default: the address where it listens.
    #[arg(
        long,
        env = "TUNNEL_ADVERTISE",
        value_name = "URL",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
    /// The certificate (PEM) by which gateways know each other, as servers and as clients. Turns TLS on between them.
    #[arg(
        long,
        env = "TUNNEL_HOP_CERT",
        value_name = "FILE",
        requires = "hop_key",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hop_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(
        long,
        env = "TUNNEL_HOP_KEY",
        value_name = "FILE",
        requires = "hop_cert",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hop_key: Option<PathBuf>,
    /// The CA (PEM) of the gateways' certificates. It signs gateways only: who has a certificate of it can call every
    /// device.
    #[arg(
        long,
        env = "TUNNEL_HOP_CA",
        value_name = "FILE",
        requires = "hop_cert",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hop_ca: Option<PathBuf>,
    /// The name in the gateways' certificates, if it is not that of their addresses.
    #[arg(
        long,
        env = "TUNNEL_HOP_SERVER_NAME",
        value_name = "NAME",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hop_server_name: Option<String>,
    /// The zone of this gateway. Calls prefer gateways of the same zone. Default: none.
    #[arg(long, env = "TUNNEL_ZONE", value_name = "ZONE", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    /// The URLs where agents dial this gateway, separated by commas, for agents of gateways that stop. Default: none.
    #[arg(
        long,
        env = "TUNNEL_PUBLIC_ADDRESS",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) public_address: Vec<String>,
    /// Whether a key belongs to one device at a time in the whole fleet: the latest one. Default: no.
    #[arg(
        long,
        env = "TUNNEL_EXCLUSIVE_KEYS",
        value_name = "WHETHER",
        help_heading = "Fleet"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exclusive_keys: Option<ExclusiveKeys>,
    /// Refuse agents while etcd does not answer, because a denial may not have been heard.
    #[arg(long, env = "TUNNEL_REFUSE_WHILE_STALE", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) refuse_while_stale: bool,

    /// A file to which a line of JSON is added for each call that has ended.
    #[arg(
        long,
        env = "TUNNEL_AUDIT_LOG",
        value_name = "FILE",
        help_heading = "Running"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audit_log: Option<PathBuf>,
    /// URLs to tell when a device comes, goes or is denied, separated by commas. Default: none.
    #[arg(
        long,
        env = "TUNNEL_WEBHOOK",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Running"
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) webhook: Vec<String>,
    /// A file with the secret that signs the requests to these URLs.
    #[arg(
        long,
        env = "TUNNEL_WEBHOOK_SECRET",
        value_name = "FILE",
        help_heading = "Running"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook_secret: Option<PathBuf>,
    /// A file that keeps the keys that are denied. Without it they are forgotten at a restart.
    #[arg(
        long,
        env = "TUNNEL_DENY_FILE",
        value_name = "FILE",
        help_heading = "Running"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deny_file: Option<PathBuf>,
    /// At SIGTERM: how long calls in flight may go on, in seconds. Default: 20.
    #[arg(
        long,
        env = "TUNNEL_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        help_heading = "Running"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drain_timeout: Option<u64>,
    /// At SIGTERM: how long /readyz and the health service say "not ready" before the drain begins, in seconds.
    /// Default: 0.
    #[arg(
        long,
        env = "TUNNEL_DRAIN_NOTICE",
        value_name = "SECONDS",
        help_heading = "Running"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drain_notice: Option<u64>,
}

/// Whether a key belongs to one device at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ExclusiveKeys {
    /// Several devices may share a key.
    No,
    /// Without etcd agents are accepted, and nothing is guaranteed.
    Yes,
    /// Without etcd no agent is accepted.
    Strict,
}

/// Which name of a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    /// The first DNS name among the subject's alternative names.
    San,
    /// The common name.
    Cn,
}

/// How many tunnels a core opens at once: see `max_openings_at_once` of the library.
const OPENINGS_OF_CORE: usize = 100;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

impl Settings {
    /// The settings with those of a file and the defaults, checked.
    pub(crate) fn complete(self, file: Option<&std::path::Path>) -> Result<Self> {
        let mut settings = match file {
            Some(file) => with_file(&self, file)?,
            None => self,
        };
        settings.agents_listen.get_or_insert(loopback(7000));
        settings.clients_listen.get_or_insert(loopback(7001));
        settings.admin_listen.get_or_insert(loopback(7002));
        settings.http_listen.get_or_insert(loopback(7003));
        settings.agents_name.get_or_insert(Name::San);
        settings.clients_name.get_or_insert(Name::Cn);
        settings
            .key_metadata
            .get_or_insert_with(|| KEY_METADATA.to_owned());
        settings
            .agents_jwt_claim
            .get_or_insert_with(|| "sub".to_owned());
        settings
            .clients_jwt_claim
            .get_or_insert_with(|| "sub".to_owned());
        settings.enroll_days.get_or_insert(90);
        settings.max_tunnels.get_or_insert(100_000);
        settings.max_tunnels_of_key.get_or_insert(4);
        settings.max_tunnels_of_address.get_or_insert(1000);
        settings.max_handshakes.get_or_insert(256);
        settings.max_openings.get_or_insert_with(|| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            OPENINGS_OF_CORE * cores
        });
        settings.memory_budget.get_or_insert(1024);
        settings.max_calls_of_key.get_or_insert(1000);
        settings.drain_timeout.get_or_insert(20);
        settings.drain_notice.get_or_insert(0);
        if settings.has_fleet() {
            settings.complete_fleet()?;
        }
        settings.check()?;
        Ok(settings)
    }

    /// Whether the gateway is one of a fleet.
    pub(crate) fn has_fleet(&self) -> bool {
        !self.etcd.is_empty()
    }

    fn complete_fleet(&mut self) -> Result<()> {
        self.fleet.get_or_insert_with(|| "default".to_owned());
        // As files of deployments leave it.
        self.zone.take_if(|zone| zone.is_empty());
        self.exclusive_keys.get_or_insert(ExclusiveKeys::No);
        let listen = *self.hop_listen.get_or_insert(loopback(7004));
        if self.name.is_none() {
            let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let label = machine.trim().split('.').next().unwrap_or_default();
            if label.is_empty() {
                bail!("this machine has no name: set name");
            }
            self.name = Some(label.to_owned());
        }
        if self.advertise.is_none() && listen.ip().is_unspecified() {
            bail!(
                "hop-listen is every address of this machine: set advertise to the one that the others dial"
            );
        }
        Ok(())
    }

    /// Whether agents and clients dial the same address. Port 0 is another port for each.
    pub(crate) fn is_shared(&self) -> bool {
        let port = self.agents_listen.map(|address| address.port());
        self.agents_listen == self.clients_listen && port.is_some_and(|port| port != 0)
    }

    /// Whether the admin API answers over TLS: beyond this machine, if there is a certificate.
    pub(crate) fn admin_tls(&self) -> bool {
        self.tls_cert.is_some() && self.admin_listen.is_some_and(|a| !a.ip().is_loopback())
    }

    /// Whether agents prove who they are.
    pub(crate) fn agents_prove(&self) -> bool {
        self.agents_ca.is_some() || self.agents_tokens.is_some() || self.agents_jwt_keys.is_some()
    }

    /// Whether clients prove who they are.
    pub(crate) fn clients_prove(&self) -> bool {
        self.clients_ca.is_some()
            || self.clients_tokens.is_some()
            || self.clients_jwt_keys.is_some()
    }

    /// Refuses what would be open to everybody beyond this machine, unless it is asked for.
    fn check(&self) -> Result<()> {
        let beyond = |address: Option<SocketAddr>| address.is_some_and(|a| !a.ip().is_loopback());
        if self.is_shared() && self.agents_ca != self.clients_ca {
            bail!(
                "agents-listen and clients-listen are the same address, and agents-ca and clients-ca are not"
            );
        }
        if self.is_shared() && self.agents_proxy_protocol != self.clients_proxy_protocol {
            bail!(
                "agents-listen and clients-listen are the same address: set agents-proxy-protocol and \
                 clients-proxy-protocol, or neither"
            );
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            bail!("tls-cert and tls-key belong together");
        }
        if (self.agents_ca.is_some() || self.clients_ca.is_some()) && self.tls_cert.is_none() {
            bail!("agents-ca and clients-ca need tls-cert and tls-key");
        }
        if self.enroll_tokens.is_some()
            && (self.agents_ca.is_none() || self.enroll_ca_key.is_none())
        {
            bail!("enroll-tokens needs agents-ca and enroll-ca-key");
        }
        if self.agents_ca.is_none() && self.agents_name == Some(Name::Cn) {
            bail!("agents-name needs agents-ca");
        }
        if self.etcd.is_empty() && (self.hop_listen.is_some() || self.advertise.is_some()) {
            bail!("hop-listen and advertise are for a fleet: set etcd");
        }
        if beyond(self.hop_listen) && self.hop_ca.is_none() {
            bail!(
                "hop-listen is reachable from other machines, and who dials it can call every device: set hop-ca, \
                 hop-cert and hop-key"
            );
        }
        if self.hop_cert.is_some() != self.hop_ca.is_some() {
            bail!("hop-cert, hop-key and hop-ca belong together");
        }
        if self.hop_ca.is_some()
            && (self.hop_ca == self.agents_ca || self.hop_ca == self.clients_ca)
        {
            bail!(
                "hop-ca also signs agents or clients, which could then act as gateways: use a CA of its own"
            );
        }
        if beyond(self.admin_listen) && self.admin_tokens.is_none() {
            bail!("admin-listen is reachable from other machines: set admin-tokens");
        }
        if self.insecure_keys {
            return Ok(());
        }
        if beyond(self.agents_listen) && !self.agents_prove() {
            bail!(
                "agents-listen is reachable from other machines, and agents prove nothing: set agents-ca, \
                 agents-tokens or agents-jwt-keys, or say insecure-keys"
            );
        }
        if beyond(self.clients_listen) && !self.clients_prove() {
            bail!(
                "clients-listen is reachable from other machines, and clients prove nothing: set clients-ca, \
                 clients-tokens or clients-jwt-keys, or say insecure-keys"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(at: &str) -> Settings {
        Settings {
            agents_listen: Some(at.parse().expect("an address")),
            ..Settings::default()
        }
    }

    #[test]
    fn what_is_open_to_other_machines_must_be_asked_for() {
        assert!(Settings::default().complete(None).is_ok());
        assert!(listening("[::1]:1").complete(None).is_ok());
        let error = listening("0.0.0.0:1").complete(None).expect_err("open");
        assert!(error.to_string().contains("agents-tokens"), "{error}");
        let asked = Settings {
            insecure_keys: true,
            ..listening("0.0.0.0:1")
        };
        assert!(asked.complete(None).is_ok());
        // The admin API has its own credentials, whatever is said of keys.
        for insecure_keys in [false, true] {
            let admin = Settings {
                admin_listen: Some("0.0.0.0:1".parse().expect("an address")),
                insecure_keys,
                ..Settings::default()
            };
            assert!(admin.complete(None).is_err());
        }
    }

    #[test]
    fn a_shared_address_has_the_proxy_protocol_for_all_or_for_none() {
        let shared = |agents_proxy_protocol, clients_proxy_protocol| Settings {
            clients_listen: "127.0.0.1:1".parse().ok(),
            agents_proxy_protocol,
            clients_proxy_protocol,
            ..listening("127.0.0.1:1")
        };
        assert!(shared(true, true).complete(None).is_ok());
        assert!(shared(false, false).complete(None).is_ok());
        assert!(shared(false, true).complete(None).is_err());
        assert!(shared(true, false).complete(None).is_err());
    }

    #[test]
    fn the_settings_that_are_printed_are_a_legal_file() {
        let printed =
            toml::to_string(&Settings::default().complete(None).expect("legal")).expect("legal");
        assert!(
            printed.contains("clients-listen = \"127.0.0.1:7001\""),
            "{printed}"
        );
        let read: Settings = toml::from_str(&printed).expect("legal");
        assert_eq!(read.max_tunnels, Some(100_000));
    }
}
