// SPDX-License-Identifier: GPL-2.0

//! `smcr linkgroup`.

use crate::device::{netdev, Filter};
use serde_json::{json, Value};
use smc_tools_common::smc::{Group, Link, Smc};
use smc_tools_common::Error;

fn beginning(group: &Group) -> String {
    let role = if group.server { "SERV" } else { "CLNT" };
    format!("{:08x} {role:<8} {:<8} ", group.id, group.kind)
}

fn group_header(details: u8) -> String {
    let more = match details {
        0 => "",
        _ => "          Version  Max-Conns  Max-Links  Bufs      Sndbuf-Bytes  RMB-Bytes     EID                               Peer-Host",
    };
    format!("LG-ID    LG-Role  LG-Type  VLAN  #Conns  PNET-ID {more}\n")
}

fn group_line(group: &Group, details: u8) -> String {
    let vlan = match group.vlan {
        0 => "0".into(),
        vlan => format!("{vlan:#x}"),
    };
    let mut line = format!(
        "{}{vlan:>4}  {:6}  {:<16} ",
        beginning(group),
        group.conns,
        group.pnet_id
    );
    if details > 0 {
        let v2 = group.v2.as_ref();
        let number = |number: Option<u8>| number.map_or("n/a".into(), |number| number.to_string());
        line.push_str(&format!(
            " {:<7}  {:>9}  {:>9}  {:<8}  {:>12}  {:>9}     {:<32}  {}",
            v2.map_or("1".into(), |v2| format!("2.{}", v2.release)),
            number(v2.map(|v2| v2.max_conns)),
            number(v2.map(|v2| v2.max_links)),
            buf_type(group),
            group.sndbuf_alloc,
            group.rmb_alloc,
            v2.map_or("n/a", |v2| &v2.eid),
            v2.map_or("n/a", |v2| &v2.peer_host),
        ));
    }
    line + "\n"
}

fn buf_type(group: &Group) -> String {
    match group.buf_type {
        0 => "physical".into(),
        1 => "virtual".into(),
        2 => "mixed".into(),
        other => format!("{other:#x}?"),
    }
}

fn link_header(details: u8) -> String {
    let mut text =
        String::from("LG-ID    LG-Role  LG-Type  Net-Dev         Link-State      #Conns  ");
    if details > 0 {
        text.push_str("Link-UID  Peer-UID  IB-Dev    IB-P  ");
    }
    if details > 1 {
        text.push_str("Local-GID                                 Peer-GID  ");
    }
    text + "\n"
}

fn link_line(group: &Group, link: &Link, netdev: &str, details: u8) -> String {
    let mut text = format!(
        "{}{netdev:<15} {:<15} {:6}  ",
        beginning(group),
        link.state,
        link.conns
    );
    if details > 0 {
        text.push_str(&format!(
            "{:08x}  {:08x}  {:<8}  {:4}  ",
            link.uid, link.peer_uid, link.device, link.port
        ));
    }
    if details > 1 {
        text.push_str(&format!("{:<40}  {}  ", link.gid, link.peer_gid));
    }
    text + "\n"
}

/// Nothing, where there is no name.
pub(crate) fn named(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

fn object(group: &Group, links: Option<&[(&Link, String)]>) -> Value {
    let mut object = json!({
        "id": format!("{:08x}", group.id), "role": if group.server { "server" } else { "client" },
        "type": group.kind.to_string(), "vlan": group.vlan, "connections": group.conns, "pnetid": named(&group.pnet_id),
        "net_cookie": group.net_cookie, "buffers": buf_type(group), "sndbuf_bytes": group.sndbuf_alloc,
        "rmb_bytes": group.rmb_alloc,
        "v2": group.v2.as_ref().map(|v2| json!({
            "release": v2.release, "os": v2.os, "eid": v2.eid, "peer_host": v2.peer_host, "direct": v2.direct,
            "max_connections": v2.max_conns, "max_links": v2.max_links,
        })),
    });
    if let (Some(links), Some(object)) = (links, object.as_object_mut()) {
        let links: Vec<Value> = links.iter().map(|(link, netdev)| json!({
            "id": link.id, "state": link.state.to_string(), "connections": link.conns, "netdev": named(netdev),
            "ifindex": link.ifindex, "ib_device": link.device, "port": link.port, "uid": format!("{:08x}", link.uid),
            "peer_uid": format!("{:08x}", link.peer_uid), "gid": link.gid, "peer_gid": link.peer_gid,
        })).collect();
        object.insert("links".into(), links.into());
    }
    object
}

/// Whether a group is asked for.
fn takes(filter: &Filter, group: &Group) -> bool {
    filter.group.is_none_or(|only| only == group.id)
}

/// Lists link groups, or their links.
pub(crate) fn show(
    smc: &mut Smc,
    words: &[String],
    with_links: bool,
    details: u8,
    json: bool,
) -> Result<(), Error> {
    let filter = Filter::parse(words, true)?;
    let by_device = filter.ibdev.is_some() || filter.netdev.is_some();
    let groups = if with_links || by_device {
        smc.links()?
    } else {
        let groups = smc.groups()?.into_iter();
        groups.map(|group| (group, Vec::new())).collect()
    };
    let mut text = if with_links {
        link_header(details)
    } else {
        group_header(details)
    };
    let mut objects = Vec::new();
    for (group, links) in groups.iter().filter(|(group, _)| takes(&filter, group)) {
        let links: Vec<(&Link, String)> = links
            .iter()
            .map(|link| (link, netdev(link.ifindex)))
            .filter(|(link, netdev)| filter.takes(netdev, &link.device))
            .collect();
        if by_device && links.is_empty() {
            continue;
        }
        if with_links {
            for (link, netdev) in &links {
                text.push_str(&link_line(group, link, netdev, details));
            }
            objects.push(object(group, Some(&links)));
        } else {
            text.push_str(&group_line(group, details));
            objects.push(object(group, None));
        }
    }
    if json {
        crate::print_json(&json!({ "linkgroups": objects }))
    } else {
        crate::print(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smc_tools_common::smc::{GroupV2, LinkState, Redundancy};

    fn group() -> Group {
        Group {
            id: 0x100,
            server: false,
            kind: Redundancy(1),
            pnet_id: "NET1".into(),
            vlan: 0,
            conns: 2,
            v2: Some(GroupV2 {
                release: 1,
                os: 2,
                eid: "SMC-RS.DEFAULT".into(),
                peer_host: "there".into(),
                direct: true,
                max_conns: 255,
                max_links: 1,
            }),
            net_cookie: 1,
            buf_type: 0,
            sndbuf_alloc: 131072,
            rmb_alloc: 65536,
        }
    }

    fn link() -> Link {
        Link {
            id: 1,
            device: "rxe0".into(),
            port: 1,
            gid: "0000:0000:0000:0000:0000:ffff:0a09:0001".into(),
            peer_gid: "0000:0000:0000:0000:0000:ffff:0a09:0002".into(),
            conns: 2,
            ifindex: 2,
            uid: 0x100,
            peer_uid: 0x200,
            state: LinkState(3),
        }
    }

    #[test]
    fn groups_stand_under_their_titles() {
        assert_eq!(
            group_header(0) + &group_line(&group(), 0),
            "LG-ID    LG-Role  LG-Type  VLAN  #Conns  PNET-ID \n\
             00000100 CLNT     SINGLE      0       2  NET1             \n"
        );
        let got = group_header(1) + &group_line(&group(), 1);
        let lines: Vec<&str> = got.lines().collect();
        for (title, cell) in [
            ("Version", "2.1"),
            ("Bufs", "physical"),
            ("EID", "SMC-RS.DEFAULT"),
            ("Peer-Host", "there"),
        ] {
            assert_eq!(lines[0].find(title), lines[1].find(cell), "{title}\n{got}");
        }
        let old = Group {
            v2: None,
            vlan: 7,
            ..group()
        };
        let line = group_line(&old, 1);
        assert!(line.contains(" 0x7 ") && line.contains(" n/a "), "{line}");
    }

    #[test]
    fn links_stand_under_their_titles() {
        assert_eq!(
            link_header(0) + &link_line(&group(), &link(), "eth0", 0),
            "LG-ID    LG-Role  LG-Type  Net-Dev         Link-State      #Conns  \n\
             00000100 CLNT     SINGLE   eth0            LINK_ACTIVE          2  \n"
        );
        assert_eq!(
            link_header(2) + &link_line(&group(), &link(), "eth0", 2),
            "LG-ID    LG-Role  LG-Type  Net-Dev         Link-State      #Conns  Link-UID  Peer-UID  IB-Dev    IB-P  \
             Local-GID                                 Peer-GID  \n\
             00000100 CLNT     SINGLE   eth0            LINK_ACTIVE          2  00000100  00000200  rxe0         1  \
             0000:0000:0000:0000:0000:ffff:0a09:0001   0000:0000:0000:0000:0000:ffff:0a09:0002  \n"
        );
    }

    #[test]
    fn json_has_links_where_they_were_asked_for() {
        let link = link();
        let links = [(&link, "eth0".to_owned())];
        let with = object(&group(), Some(&links));
        assert_eq!(with["links"][0]["netdev"], "eth0");
        assert_eq!(with["links"][0]["uid"], "00000100");
        assert_eq!(with["v2"]["peer_host"], "there");
        assert!(object(&group(), None).get("links").is_none());
    }

    #[test]
    fn a_group_is_named_by_its_number() {
        let by = |group| Filter {
            group: Some(group),
            ..Filter::default()
        };
        assert!(takes(&by(0x100), &group()) && !takes(&by(0x101), &group()));
        assert!(!takes(&by(0x200), &group()));
        assert!(takes(&Filter::default(), &group()));
    }
}
