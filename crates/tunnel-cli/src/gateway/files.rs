//! The files that the settings of a gateway name: read at the start, and again when they change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::deny::DenyList;
use super::key::KeyRule;
use super::settings::{Name, Settings};
use super::webhooks::Webhooks;
use crate::access::AccessFile;
use crate::enroll::{EnrollFiles, EnrollService};
use crate::identity::authenticator::{Authenticator, IdentitySources, JwtSource};
use crate::identity::certificate::NameRule;
use crate::listen::{ClientAuth, ListenOptions, Listener, Tls, TlsFiles};
use crate::reload::Reloader;
use crate::tunnels::KEY_METADATA;

/// What was read.
pub(crate) struct Files {
    pub(crate) agents: Arc<Authenticator>,
    pub(crate) clients: Arc<Authenticator>,
    pub(crate) admins: Arc<Authenticator>,
    pub(crate) access: Arc<AccessFile>,
    pub(crate) deny: Arc<DenyList>,
    pub(crate) rule: KeyRule,
    pub(crate) enroll: Option<EnrollService>,
    pub(crate) webhooks: Webhooks,
}

impl From<Name> for NameRule {
    fn from(name: Name) -> Self {
        match name {
            Name::San => Self::San,
            Name::Cn => Self::Cn,
        }
    }
}

fn jwt(settings: &Settings, keys: Option<&Path>, claim: Option<&str>) -> Option<JwtSource> {
    Some(JwtSource {
        keys: keys?.to_owned(),
        claim: claim.unwrap_or("sub").to_owned(),
        issuer: settings.jwt_issuer.clone(),
        audience: settings.jwt_audience.clone(),
    })
}

impl Files {
    /// Reads the files, but those of TLS.
    pub(crate) fn open(settings: &Settings) -> Result<Self> {
        let agents = IdentitySources {
            certificates: settings
                .agents_ca
                .as_ref()
                .and(settings.agents_name)
                .map(Into::into),
            tokens: settings.agents_tokens.clone(),
            jwt: jwt(
                settings,
                settings.agents_jwt_keys.as_deref(),
                settings.agents_jwt_claim.as_deref(),
            ),
            crl: settings.crl.clone(),
        };
        let clients = IdentitySources {
            certificates: settings
                .clients_ca
                .as_ref()
                .and(settings.clients_name)
                .map(Into::into),
            tokens: settings.clients_tokens.clone(),
            jwt: jwt(
                settings,
                settings.clients_jwt_keys.as_deref(),
                settings.clients_jwt_claim.as_deref(),
            ),
            crl: settings.crl.clone(),
        };
        let admins = IdentitySources {
            tokens: settings.admin_tokens.clone(),
            ..IdentitySources::default()
        };
        let enroll = settings.enroll_tokens.as_ref().map(|tokens| {
            EnrollService::open(EnrollFiles {
                ca_cert: settings
                    .agents_ca
                    .clone()
                    .context("enroll-tokens needs agents-ca")?,
                ca_key: settings
                    .enroll_ca_key
                    .clone()
                    .context("enroll-tokens needs enroll-ca-key")?,
                tokens: tokens.clone(),
                days: settings.enroll_days.unwrap_or(90),
            })
        });
        let metadata = settings.key_metadata.as_deref().unwrap_or(KEY_METADATA);
        Ok(Self {
            agents: Arc::new(Authenticator::open(agents)?),
            clients: Arc::new(Authenticator::open(clients)?),
            admins: Arc::new(Authenticator::open(admins)?),
            access: Arc::new(AccessFile::open(settings.access.as_deref())?),
            deny: Arc::new(DenyList::open(settings.deny_file.as_deref())?),
            rule: KeyRule::new(metadata, settings.authority_suffix.as_deref())?,
            enroll: enroll.transpose()?,
            webhooks: Webhooks::open(&settings.webhook, settings.webhook_secret.as_deref())?,
        })
    }

    /// Reads them again when they change.
    pub(crate) fn watch(&self, reloader: &mut Reloader) {
        let people = [
            ("agents", &self.agents),
            ("clients", &self.clients),
            ("operators", &self.admins),
        ];
        for (name, authenticator) in people {
            let authenticator = authenticator.clone();
            reloader.add(name, move || authenticator.reload());
        }
        let access = self.access.clone();
        reloader.add("access", move || access.reload());
    }
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Agents,
    Clients,
    Admins,
    Gateways,
}

impl For {
    fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Clients => "clients",
            Self::Admins => "admin",
            Self::Gateways => "hop",
        }
    }

    fn address(self, settings: &Settings) -> Option<SocketAddr> {
        match self {
            Self::Agents => settings.agents_listen,
            Self::Clients => settings.clients_listen,
            Self::Admins => settings.admin_listen,
            Self::Gateways => settings.hop_listen,
        }
    }
}

/// How a listener listens.
pub(crate) fn options(settings: &Settings, who: For) -> ListenOptions {
    let agents_have_others = settings.agents_tokens.is_some()
        || settings.agents_jwt_keys.is_some()
        || settings.enroll_tokens.is_some()
        || settings.insecure_keys;
    // An access file may allow calls without a proof.
    let clients_have_others = settings.clients_tokens.is_some()
        || settings.clients_jwt_keys.is_some()
        || settings.access.is_some()
        || settings.insecure_keys;
    let (client_ca, optional, proxy_protocol) = match who {
        For::Agents if settings.is_shared() => (
            &settings.agents_ca,
            agents_have_others || clients_have_others,
            settings.agents_proxy_protocol,
        ),
        For::Agents => (
            &settings.agents_ca,
            agents_have_others,
            settings.agents_proxy_protocol,
        ),
        For::Clients => (
            &settings.clients_ca,
            clients_have_others,
            settings.clients_proxy_protocol,
        ),
        For::Admins => (&None, true, false),
        For::Gateways => (&settings.hop_ca, false, false),
    };
    let files = match who {
        For::Gateways => settings.hop_cert.clone().zip(settings.hop_key.clone()),
        _ => settings.tls_cert.clone().zip(settings.tls_key.clone()),
    };
    let files = files.filter(|_| who != For::Admins || settings.admin_tls());
    ListenOptions {
        tls: files.map(|(cert, key)| TlsFiles {
            cert,
            key,
            client_ca: client_ca.clone(),
            client_crl: settings.crl.clone(),
            client_auth: match optional {
                true => ClientAuth::Optional,
                false => ClientAuth::Required,
            },
        }),
        max_handshakes: settings.max_handshakes.unwrap_or(256),
        proxy_protocol,
    }
}

/// Binds a listener, says so, and reads its files again when they change.
pub(crate) async fn bind(
    settings: &Settings,
    who: For,
    reloader: &mut Reloader,
) -> Result<Listener> {
    let name = who.name();
    let address = who
        .address(settings)
        .with_context(|| format!("{name}-listen has no address"))?;
    let listener = Listener::bind(address, options(settings, who)).await;
    let listener = listener.with_context(|| format!("{name}-listen"))?;
    println!("{name}: listening at {}", listener.local_addr());
    if let Some(tls) = listener.tls() {
        reloader.add(&format!("TLS for {name}"), move || tls.reload());
    }
    Ok(listener)
}

/// Reads all files, and opens nothing.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    let _files = Files::open(settings)?;
    for who in [For::Agents, For::Clients, For::Admins, For::Gateways] {
        if let Some(files) = options(settings, who).tls {
            Tls::open(files)?;
        }
    }
    Ok(())
}
