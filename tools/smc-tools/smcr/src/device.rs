// SPDX-License-Identifier: GPL-2.0

//! `smcr device`.

use crate::args::is_short_for;
use crate::linkgroup::named;
use serde_json::{json, Value};
use smc_tools_common::smc::{Device, Port, Smc};
use smc_tools_common::{interface, Error};

/// What a line of words asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// An RDMA device.
    pub(crate) ibdev: Option<String>,
    /// A network device.
    pub(crate) netdev: Option<String>,
    /// A link group.
    pub(crate) group: Option<u32>,
}

impl Filter {
    /// `[all] [ibdev DEVICE] [netdev DEVICE]`; where `groups`, also a link group's number.
    pub(crate) fn parse(words: &[String], groups: bool) -> Result<Self, Error> {
        let wrong = |why: String| Error::Refused(format!("{why}: see 'smcr help'"));
        let mut filter = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut device = || {
                words
                    .next()
                    .cloned()
                    .ok_or_else(|| wrong(format!("no device behind '{word}'")))
            };
            if is_short_for(word, "all") {
                continue;
            } else if is_short_for(word, "ibdev") {
                filter.ibdev = Some(device()?);
            } else if is_short_for(word, "netdev") {
                filter.netdev = Some(device()?);
            } else if let (true, Ok(group)) = (groups, u32::from_str_radix(word, 16)) {
                filter.group = Some(group);
            } else {
                return Err(wrong(format!("'{word}' is not known here")));
            }
        }
        Ok(filter)
    }

    /// Whether a network and an RDMA device are asked for.
    pub(crate) fn takes(&self, netdev: &str, ibdev: &str) -> bool {
        self.netdev.as_deref().is_none_or(|only| only == netdev)
            && self.ibdev.as_deref().is_none_or(|only| only == ibdev)
    }
}

/// The name of a network device, or nothing where it is in another namespace.
pub(crate) fn netdev(ifindex: u32) -> String {
    interface::name(ifindex).unwrap_or_default()
}

/// What there is behind a device, by the number of PCI: names of IBM's cards, else the number.
fn kind(device: &Device) -> String {
    match device.pci.as_ref().map(|pci| pci.device) {
        None => "n/a".into(),
        Some(0x1004) => "RoCE_Express".into(),
        Some(0x1016) => "RoCE_Express2".into(),
        Some(0x101e) => "RoCE_Express3".into(),
        Some(0x04ed) => "ISM".into(),
        Some(other) => format!("{other:#x}"),
    }
}

/// A physical network; with an asterisk if a user has given it.
fn pnet(port: &Port) -> String {
    let asterisk = if port.pnet_by_user { "*" } else { "" };
    format!("{asterisk}{}", port.pnet_id)
}

fn header(details: bool) -> String {
    let more = if details {
        " FID   PCI-ID        PCHID  "
    } else {
        ""
    };
    format!(
        "Net-Dev         IB-Dev   IB-P  IB-State  Type          Crit  {more}#Links  PNET-ID  \n"
    )
}

fn line(device: &Device, port: &Port, netdev: &str, details: bool) -> String {
    let state = if port.active { "ACTIVE" } else { "INACTIVE" };
    let critical = if device.critical { "Yes" } else { "No" };
    let more = match (&device.pci, details) {
        (_, false) => String::new(),
        (Some(pci), true) => format!("{:04x}  {:<12}  {:04x}    ", pci.fid, pci.id, pci.pchid),
        (None, true) => format!("{:4}  {:<12}  {:4}    ", "n/a", "n/a", "n/a"),
    };
    format!(
        "{netdev:<15} {:<8} {:4}  {state:>8}  {:<13}  {critical:>3}   {more}{:5}  {:<16} \n",
        device.name,
        port.number,
        kind(device),
        port.links,
        pnet(port)
    )
}

fn object(device: &Device, ports: &[(&Port, String)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(port, netdev)| {
            json!({
                "port": port.number, "netdev": named(netdev), "ifindex": port.ifindex, "active": port.active,
                "links": port.links, "pnetid": named(&port.pnet_id), "pnetid_by_user": port.pnet_by_user,
            })
        })
        .collect();
    let pci = device.pci.as_ref().map(|pci| {
        json!({
            "fid": pci.fid, "pchid": pci.pchid, "vendor": pci.vendor, "device": pci.device, "id": pci.id,
        })
    });
    json!({
        "name": device.name, "critical": device.critical, "links": device.links, "pci": pci, "ports": ports,
    })
}

/// Lists ports of devices.
pub(crate) fn show(
    smc: &mut Smc,
    words: &[String],
    details: bool,
    json: bool,
) -> Result<(), Error> {
    let words = match words {
        [first, rest @ ..] if is_short_for(first, "show") => rest,
        words => words,
    };
    let filter = Filter::parse(words, false)?;
    let devices = smc.devices()?;
    let mut text = header(details);
    let mut objects = Vec::new();
    for device in &devices {
        let ports: Vec<(&Port, String)> = device
            .ports
            .iter()
            .map(|port| (port, netdev(port.ifindex)))
            .filter(|(_, netdev)| filter.takes(netdev, &device.name))
            .collect();
        if ports.is_empty() {
            continue;
        }
        for (port, netdev) in &ports {
            text.push_str(&line(device, port, netdev, details));
        }
        objects.push(object(device, &ports));
    }
    if json {
        crate::print_json(&json!({ "devices": objects }))
    } else {
        crate::print(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smc_tools_common::smc::Pci;

    fn device() -> Device {
        Device {
            name: "mlx5_0".into(),
            links: 2,
            critical: true,
            pci: Some(Pci {
                fid: 0x10,
                pchid: 0x11,
                vendor: 0x15b3,
                device: 0x1016,
                id: "0000:01:00.0".into(),
            }),
            ports: vec![Port {
                number: 1,
                pnet_id: "NET1".into(),
                pnet_by_user: true,
                ifindex: 3,
                active: true,
                links: 2,
            }],
        }
    }

    #[test]
    fn lines_stand_under_their_titles() {
        let device = device();
        let line = |details| line(&device, &device.ports[0], "eth0", details);
        assert_eq!(
            header(false) + &line(false),
            "Net-Dev         IB-Dev   IB-P  IB-State  Type          Crit  #Links  PNET-ID  \n\
             eth0            mlx5_0      1    ACTIVE  RoCE_Express2  Yes       2  *NET1            \n"
        );
        assert_eq!(
            header(true) + &line(true),
            "Net-Dev         IB-Dev   IB-P  IB-State  Type          Crit   FID   PCI-ID        PCHID  #Links  PNET-ID  \n\
             eth0            mlx5_0      1    ACTIVE  RoCE_Express2  Yes   0010  0000:01:00.0  0011        2  *NET1            \n"
        );
    }

    #[test]
    fn a_soft_device_has_no_pci_function() {
        let mut device = device();
        device.pci = None;
        device.critical = false;
        assert_eq!(kind(&device), "n/a");
        let line = line(&device, &device.ports[0], "", true);
        assert!(
            line.contains(" n/a             No   n/a   n/a           n/a   "),
            "{line}"
        );
        assert_eq!(object(&device, &[])["pci"], Value::Null);
    }

    #[test]
    fn words_ask_for_devices() {
        let parse = |line: &str, groups| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Filter::parse(&words, groups).map_err(|error| error.to_string())
        };
        let filter = parse("all ibdev rxe0", false).unwrap();
        assert!(filter.takes("x", "rxe0") && !filter.takes("x", "rxe1"));
        let filter = parse("net eth0", false).unwrap();
        assert!(filter.takes("eth0", "x") && !filter.takes("eth1", "x"));
        assert_eq!(parse("", true).unwrap(), Filter::default());
        assert_eq!(parse("0000ab00", true).unwrap().group, Some(0xab00));
        assert!(parse("0000ab00", false).is_err());
        assert!(parse("ibdev", true).unwrap_err().contains("no device"));
        assert!(parse("xyz", true).is_err());
    }
}
