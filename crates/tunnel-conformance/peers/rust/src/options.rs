//! The command line, which is that of the other peers.

use std::fmt::{self, Debug, Formatter};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use example_support::address::Address;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tunnel_client::{Config, ConfigError, Revisions};

use crate::Suite;
use crate::call::Case;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command<S: Suite> {
    /// Serve through forward tunnels.
    ServeForward(End),
    /// Call through forward tunnels.
    CallForward {
        /// The end that dials.
        #[command(flatten)]
        end: End,
        /// What tunnels are opened with.
        #[command(flatten)]
        opening: Opening<S>,
        /// What to try.
        #[command(flatten)]
        selected: Selected<S>,
        /// How to try it.
        #[command(flatten)]
        trial: Trial,
    },
    /// Serve through a reverse tunnel.
    ServeReverse(ServeReverse<S>),
    /// Call through reverse tunnels.
    CallReverse {
        /// The end that listens.
        #[command(flatten)]
        end: End,
        /// What to try.
        #[command(flatten)]
        selected: Selected<S>,
        /// How to try it.
        #[command(flatten)]
        trial: Trial,
    },
    /// What only this program can do.
    #[command(flatten)]
    Extra(S::Extra),
    /// List what can be tried.
    Cases,
}

/// The further subcommands of a program that has none.
#[derive(Debug, Subcommand)]
pub enum Nothing {}

/// How to serve through reverse tunnels.
#[derive(Debug, Args)]
pub struct ServeReverse<S: Suite> {
    /// The end that dials.
    #[command(flatten)]
    pub end: End,

    /// What tunnels are opened with.
    #[command(flatten)]
    pub opening: Opening<S>,

    /// Dial again when the tunnel has ended.
    #[arg(long)]
    pub again: bool,
}

/// One end of tunnels.
#[derive(Debug, Args)]
pub struct End {
    /// Where to listen, or whom to dial.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Address,

    /// The only revision to speak. Default: whichever the other end prefers.
    #[arg(long)]
    revision: Option<Revision>,
}

/// A revision of the protocol.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Revision {
    Zero,
    One,
}

/// What tunnels are opened with.
#[derive(Debug, Args)]
pub struct Opening<S: Suite> {
    /// Metadata to open tunnels with; may be repeated.
    #[arg(long = "key", value_name = "NAME=VALUE", value_parser = key::<S::Key>)]
    keys: Vec<S::Key>,
}

/// One entry of the metadata that tunnels are opened with.
pub trait Key: Clone + Debug + Send + Sync + 'static {
    /// Takes the two sides of `NAME=VALUE`, or says what is wrong with them.
    fn new(name: &str, value: &str) -> Result<Self, String>;

    /// Adds the entry to others.
    fn append_to(&self, metadata: &mut MetadataMap) -> Result<(), Status>;
}

/// What to try.
#[derive(Debug, Args)]
pub struct Selected<S: Suite> {
    /// What to try.
    #[arg(long = "case", value_name = "NAME[,NAME...]|all", value_parser = cases_named::<S>)]
    cases: Selection<S>,
}

/// How to try cases.
#[derive(Debug, Args)]
pub struct Trial {
    /// How long one case may take.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,

    /// Run all cases through one tunnel, not each through its own.
    #[arg(long)]
    pub one_tunnel: bool,
}

/// Cases in the order in which they run. A type of its own, as `clap` takes a
/// bare vector for an option that is repeated.
struct Selection<S: Suite>(Vec<&'static S::Case>);

impl End {
    /// The tunnels' settings.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let revisions = match self.revision {
            None => Revisions::ZeroAndOne,
            Some(Revision::Zero) => Revisions::OnlyZero,
            Some(Revision::One) => Revisions::OnlyOne,
        };
        Config::builder().revisions(revisions).build()
    }
}

impl<S: Suite> Opening<S> {
    /// The metadata to open tunnels with.
    pub fn metadata(&self) -> Result<MetadataMap, Status> {
        let mut metadata = MetadataMap::new();
        for key in &self.keys {
            key.append_to(&mut metadata)?;
        }
        Ok(metadata)
    }
}

impl<S: Suite> Selected<S> {
    /// The cases to try, in order.
    pub fn cases(&self) -> &[&'static S::Case] {
        &self.cases.0
    }
}

impl<S: Suite> Clone for Selection<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Suite> Debug for Selection<S> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|case| case.name());
        formatter.debug_list().entries(names).finish()
    }
}

fn key<K: Key>(text: &str) -> Result<K, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    K::new(name, value)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn cases_named<S: Suite>(text: &str) -> Result<Selection<S>, String> {
    if text == "all" {
        return Ok(Selection(S::CASES.iter().collect()));
    }
    let find = |name| {
        let found = S::CASES.iter().find(|case| case.name() == name);
        found.ok_or_else(|| format!("there is no case {name:?}"))
    };
    text.split(',')
        .map(find)
        .collect::<Result<_, _>>()
        .map(Selection)
}
