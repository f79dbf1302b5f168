//! The gateway and the devices: started, killed, drained, and started again.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use example_support::address::Address;
use futures::future::try_join_all;

use crate::books::Books;
use crate::device::Device;
use crate::dispatch::Dispatcher;
use crate::gateway::Gateway;

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// `None` while another one is started.
    gateway: Option<Gateway>,
    address: Address,
    keys: Vec<String>,
    devices: BTreeMap<String, Device>,
    dispatcher: Dispatcher,
    books: Arc<Books>,
}

impl Fleet {
    /// Starts a gateway and the devices.
    pub(crate) async fn start(devices: usize) -> Result<Self> {
        let gateway = Gateway::start(&"127.0.0.1:0".parse()?).await?;
        let dispatcher = Dispatcher::default();
        dispatcher.put_in_service(Some(gateway.desk().clone()));
        let width = devices.to_string().len();
        let mut fleet = Self {
            address: gateway.address().clone(),
            gateway: Some(gateway),
            keys: (1..=devices)
                .map(|n| format!("device-{n:0width$}"))
                .collect(),
            devices: BTreeMap::new(),
            dispatcher,
            books: Arc::default(),
        };
        fleet.start_devices(&fleet.keys.clone())?;
        Ok(fleet)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }

    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    pub(crate) fn books(&self) -> &Arc<Books> {
        &self.books
    }

    pub(crate) fn gateway(&self) -> Result<&Gateway> {
        self.gateway.as_ref().context("there is no gateway")
    }

    /// Waits until every device has all its tunnels at the gateway in service.
    pub(crate) async fn complete(&self, tell: impl Fn(usize)) -> Result<()> {
        self.gateway()?.wait_for(&self.keys, tell).await
    }

    pub(crate) fn start_devices(&mut self, keys: &[String]) -> Result<()> {
        for key in keys {
            let device = Device::start(key, &self.address, &self.books)?;
            self.devices.insert(key.clone(), device);
        }
        Ok(())
    }

    pub(crate) async fn kill_devices(&mut self, keys: &[String]) -> Result<()> {
        try_join_all(self.take(keys).map(Device::kill)).await?;
        Ok(())
    }

    pub(crate) async fn drain_devices(&mut self, keys: &[String]) -> Result<()> {
        try_join_all(self.take(keys).map(Device::drain)).await?;
        Ok(())
    }

    fn take(&mut self, keys: &[String]) -> impl Iterator<Item = Device> {
        keys.iter().filter_map(|key| self.devices.remove(key))
    }

    pub(crate) async fn kill_gateway(&mut self) -> Result<()> {
        self.dispatcher.put_in_service(None);
        let gateway = self.gateway.take().context("there is no gateway")?;
        gateway.kill().await
    }

    /// Starts a gateway at the address of the last one.
    pub(crate) async fn start_gateway(&mut self) -> Result<()> {
        let gateway = Gateway::start(&self.address).await?;
        self.dispatcher.put_in_service(Some(gateway.desk().clone()));
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Starts the next gateway, sends calls to it, and shuts the last one down
    /// gracefully.
    pub(crate) async fn replace_gateway(&mut self) -> Result<()> {
        let last = self.gateway.take().context("there is no gateway")?;
        last.give_way(self.start_gateway()).await
    }
}
