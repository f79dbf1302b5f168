//! The return of a fleet's devices in simulation, for numbers of them that no one machine holds.

mod herd;
mod survivor;

use std::time::Duration;

use anyhow::{Result, ensure};
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

pub(crate) use herd::{Herd, Scenario, simulate};

#[derive(clap::Args)]
pub(crate) struct Simulation {
    /// Simulate this number of gateways.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..))]
    gateways: u16,
    /// Simulate the loss of this number of gateways at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    lose: u16,
    /// The tunnels that a simulated gateway can open in a second.
    #[arg(long, value_name = "N", default_value_t = 6000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// The tunnels that a simulated gateway opens at once.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    openings: u32,
    /// The seed of the simulation.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Simulation {
    /// Simulates the loss with one tunnel of each device and with two; without measures against herds, with the limit on
    /// openings alone, and with the spread told too.
    pub(crate) fn table(&self, devices: &[u32]) -> Result<Table> {
        ensure!(self.lose < self.gateways, "no gateway would be left");
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        let head = ["devices", "tunnels each", "measures"];
        table.set_header(head.into_iter().chain(Herd::COLUMNS));
        for devices in devices {
            for tunnels in [1, 2] {
                for (measures, limited, told) in [
                    ("none", false, false),
                    ("limit", true, false),
                    ("limit, spread", true, true),
                ] {
                    let herd = simulate(&Scenario {
                        devices: usize::try_from(*devices)?,
                        tunnels,
                        gateways: self.gateways.into(),
                        lost: self.lose.into(),
                        rate: self.rate.into(),
                        max_openings: limited.then_some(usize::try_from(self.openings)?),
                        told,
                        tls: true,
                        seed: self.seed,
                    });
                    let head = [devices.to_string(), tunnels.to_string(), measures.into()];
                    table.add_row(head.into_iter().chain(herd.cells()));
                }
            }
        }
        Ok(table)
    }
}

impl Herd {
    /// The columns of a herd.
    pub(crate) const COLUMNS: [&str; 10] = [
        "peak attempts/s",
        "peak openings/s",
        "attempts each (most)",
        "refused",
        "timed out",
        "99 % back",
        "all back",
        "without any tunnel",
        "CPU",
        "transactions",
    ];

    /// Its cells under the columns.
    pub(crate) fn cells(&self) -> [String; Self::COLUMNS.len()] {
        let each = self.attempts as f64 / self.lost.max(1) as f64;
        [
            self.peak_attempts.to_string(),
            self.peak_openings.to_string(),
            format!("{each:.2} ({})", self.most_attempts),
            self.refused.to_string(),
            self.timed_out.to_string(),
            seconds(self.most_back),
            seconds(self.all_back),
            match self.without {
                0 => "0".to_owned(),
                without => format!("{without}, {}", seconds(self.reachable)),
            },
            seconds(self.cpu),
            format!("{} + {}", self.published, self.swept),
        ]
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
