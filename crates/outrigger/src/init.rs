//! `outrigger init`: brings this network namespace's traffic to the outrigger, or takes the rules that do so away.

use std::path::Path;
use std::process::ExitCode;

use redirect::{Choice, Netfilter, PortRange, Rules, Settings, Tool};

use crate::config::{Config, Overrides};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The configuration file, whose `interception` says what to redirect; the flags below win over it
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Prints what would be done, and does nothing
    #[arg(long, conflicts_with = "remove")]
    dry_run: bool,
    /// Takes the rules away; open connections that were redirected break
    #[arg(long)]
    remove: bool,
    /// Where connections to the app are taken [default: 6143]
    #[arg(long, value_name = "PORT")]
    inbound_port: Option<u16>,
    /// Where connections of the app's are taken [default: 6140]
    #[arg(long, value_name = "PORT")]
    outbound_port: Option<u16>,
    /// The user the outrigger runs as, whose connections are left alone [default: 6102]
    #[arg(long, value_name = "UID")]
    proxy_uid: Option<u32>,
    /// Ports of the app that are redirected, such as 80,8000-8100 [default: all]
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    include_inbound_ports: Option<Vec<PortRange>>,
    /// Ports of the app that are not
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_inbound_ports: Option<Vec<PortRange>>,
    /// Ports the app calls that are redirected [default: all]
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    include_outbound_ports: Option<Vec<PortRange>>,
    /// Ports the app calls that are not
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Option<Vec<PortRange>>,
    /// Networks the app calls that are redirected [default: all]
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    include_outbound_networks: Option<Vec<ipnet::IpNet>>,
    /// Networks the app calls that are not
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    exclude_outbound_networks: Option<Vec<ipnet::IpNet>>,
}

/// Does what the command line says; on failure nothing is half done, and standard error says what is missing.
pub(crate) fn init(args: Init) -> ExitCode {
    let settings = match &args.config {
        Some(file) => match settings(file) {
            Ok(settings) => settings,
            Err(errors) => {
                eprintln!("{errors}");
                return ExitCode::FAILURE;
            }
        },
        None => Settings::default(),
    };
    match act(&args, &args.over(settings)) {
        Ok(said) => {
            crate::say(said.trim_end());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("outrigger init: {e}");
            ExitCode::FAILURE
        }
    }
}

fn settings(file: &Path) -> Result<Settings, crate::config::Errors> {
    Config::load(file, &Overrides::default()).map(|config| config.interception)
}

fn act(args: &Init, settings: &Settings) -> Result<String, Box<dyn std::error::Error>> {
    let rules = Rules::new(settings)?;
    let netfilter = Netfilter::find()?;
    if args.dry_run {
        return Ok(netfilter.dry_run(&rules)?);
    }
    if args.remove {
        netfilter.remove()?;
        return Ok("the outrigger's rules are gone from this network namespace".into());
    }
    let tool = match netfilter.apply(&rules)? {
        Tool::Nft => "nftables",
        Tool::Iptables => "iptables",
    };
    Ok(format!(
        "in place, by {tool}: TCP to this network namespace goes to port {}, TCP from it to port {}, but for user {}'s",
        settings.inbound_port, settings.outbound_port, settings.proxy_uid
    ))
}

impl Init {
    /// Settings with what the flags say.
    fn over(&self, mut settings: Settings) -> Settings {
        fn replace<T: Clone>(choice: &mut Choice<T>, include: &Option<Vec<T>>, exclude: &Option<Vec<T>>) {
            for (list, given) in [(&mut choice.include, include), (&mut choice.exclude, exclude)] {
                if let Some(given) = given {
                    list.clone_from(given);
                }
            }
        }
        self.inbound_port.into_iter().for_each(|port| settings.inbound_port = port);
        self.outbound_port.into_iter().for_each(|port| settings.outbound_port = port);
        self.proxy_uid.into_iter().for_each(|uid| settings.proxy_uid = uid);
        replace(&mut settings.inbound_ports, &self.include_inbound_ports, &self.exclude_inbound_ports);
        replace(&mut settings.outbound_ports, &self.include_outbound_ports, &self.exclude_outbound_ports);
        replace(&mut settings.outbound_networks, &self.include_outbound_networks, &self.exclude_outbound_networks);
        settings
    }
}
