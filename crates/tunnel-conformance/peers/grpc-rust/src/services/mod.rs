//! The services that are called. They know nothing of tunnels.

mod battery;
mod ending;
mod official;

use tonic::service::Routes;

use crate::proto::battery::test_service_server::TestServiceServer as BatteryServer;
use crate::proto::official::test_service_server::TestServiceServer as OfficialServer;
pub(crate) use battery::{entries, metadata};
use ending::WithEndings;

/// Both test services. `UnimplementedService` is left out, as its name demands.
pub(crate) fn all() -> Routes {
    Routes::new(WithEndings(OfficialServer::new(official::Official)))
        .add_service(WithEndings(BatteryServer::new(battery::Battery)))
}
