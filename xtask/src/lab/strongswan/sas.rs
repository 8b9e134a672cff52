//! What `swanctl --list-sas --pretty` says, as types.

use std::collections::BTreeMap;

/// An IKE SA.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IkeSa {
    /// The connection it belongs to.
    pub name: String,
    /// charon's number for it; a rekeyed SA has a new one.
    pub unique_id: u64,
    /// `ESTABLISHED`, `CONNECTING`, `REKEYED`, `DELETING`.
    pub state: String,
    /// Both SPIs, initiator's first.
    pub spis: (String, String),
    /// Whether this end initiated it.
    pub initiator: bool,
    /// Identity of this end.
    pub local_id: String,
    /// Identity of the peer.
    pub remote_id: String,
    /// Its own address.
    pub local_host: String,
    /// Address of the peer.
    pub remote_host: String,
    /// UDP port of the peer.
    pub remote_port: u16,
    /// Virtual addresses given to the peer, or received.
    pub virtual_addresses: Vec<String>,
    /// Its children.
    pub children: Vec<ChildSa>,
    /// Everything as charon named it: `encr-alg`, `dh-group`, `nat-remote`, …
    pub facts: BTreeMap<String, String>,
}

/// A child SA: a pair of ESP SAs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildSa {
    /// The child it belongs to.
    pub name: String,
    /// charon's number for it; a rekeyed SA has a new one.
    pub unique_id: u64,
    /// `INSTALLED`, `REKEYING`, `REKEYED`, `DELETED`.
    pub state: String,
    /// Whether ESP travels in UDP.
    pub in_udp: bool,
    /// SPI of what it receives, hexadecimal.
    pub spi_in: String,
    /// SPI of what it sends, hexadecimal.
    pub spi_out: String,
    /// Inner bytes received.
    pub bytes_in: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Inner bytes sent.
    pub bytes_out: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Selectors of this end.
    pub local: Vec<String>,
    /// Selectors of the peer.
    pub remote: Vec<String>,
    /// Everything as charon named it: `encr-alg`, `integ-alg`, `esn`, `dh-group`, …
    pub facts: BTreeMap<String, String>,
}

impl ChildSa {
    /// Whether packets went both ways.
    pub fn has_carried(&self) -> bool {
        self.packets_in > 0 && self.packets_out > 0
    }
}

/// A section of the answer: settings, lists and sections below it.
#[derive(Debug, Default)]
struct Node {
    texts: BTreeMap<String, String>,
    lists: BTreeMap<String, Vec<String>>,
    sections: Vec<(String, Node)>,
}

impl Node {
    fn text(&self, key: &str) -> String {
        self.texts.get(key).cloned().unwrap_or_default()
    }

    fn number<T: std::str::FromStr + Default>(&self, key: &str) -> T {
        self.texts
            .get(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    fn flag(&self, key: &str) -> bool {
        self.texts.get(key).is_some_and(|text| text == "yes")
    }

    fn list(&self, key: &str) -> Vec<String> {
        self.lists.get(key).cloned().unwrap_or_default()
    }
}

/// Reads the answer of `swanctl --list-sas --pretty`.
pub(super) fn parse(text: &str) -> Vec<IkeSa> {
    let tree = tree(&mut text.lines().map(str::trim));
    // Each `list-sa event { NAME { … } }` is one IKE SA.
    let events = tree
        .sections
        .into_iter()
        .flat_map(|(_, event)| event.sections);
    events.map(|(name, node)| ike_sa(name, node)).collect()
}

/// Reads lines up to the brace that closes this section.
fn tree<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Node {
    let mut node = Node::default();
    while let Some(line) = lines.next() {
        if line == "}" {
            break;
        } else if let Some(name) = line.strip_suffix(" {") {
            node.sections.push((name.to_owned(), tree(lines)));
        } else if let Some(key) = line.strip_suffix(" = [") {
            let values = lines
                .by_ref()
                .take_while(|&line| line != "]")
                .map(str::to_owned)
                .collect();
            node.lists.insert(key.to_owned(), values);
        } else if let Some((key, value)) = line.split_once(" = ") {
            node.texts.insert(key.to_owned(), value.to_owned());
        }
    }
    node
}

fn ike_sa(name: String, node: Node) -> IkeSa {
    let mut virtual_addresses = node.list("local-vips");
    virtual_addresses.extend(node.list("remote-vips"));
    let children = node.sections.iter().filter(|(name, _)| name == "child-sas");
    IkeSa {
        name,
        unique_id: node.number("uniqueid"),
        state: node.text("state"),
        spis: (node.text("initiator-spi"), node.text("responder-spi")),
        initiator: node.flag("initiator"),
        local_id: node.text("local-id"),
        remote_id: node.text("remote-id"),
        local_host: node.text("local-host"),
        remote_host: node.text("remote-host"),
        remote_port: node.number("remote-port"),
        virtual_addresses,
        children: children
            .flat_map(|(_, list)| &list.sections)
            .map(|(_, child)| child_sa(child))
            .collect(),
        facts: node.texts,
    }
}

fn child_sa(node: &Node) -> ChildSa {
    ChildSa {
        name: node.text("name"),
        unique_id: node.number("uniqueid"),
        state: node.text("state"),
        in_udp: node.flag("encap"),
        spi_in: node.text("spi-in"),
        spi_out: node.text("spi-out"),
        bytes_in: node.number("bytes-in"),
        packets_in: node.number("packets-in"),
        bytes_out: node.number("bytes-out"),
        packets_out: node.number("packets-out"),
        local: node.list("local-ts"),
        remote: node.list("remote-ts"),
        facts: node.texts.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = include_str!("testdata/list-sas.txt");

    #[test]
    fn an_answer_of_strongswan_5_9_8_is_read() {
        let sas = parse(ANSWER);
        assert_eq!(sas.len(), 1);
        let sa = &sas[0];
        assert_eq!(
            (sa.name.as_str(), sa.state.as_str()),
            ("net", "ESTABLISHED")
        );
        assert!(sa.initiator);
        assert_eq!(sa.remote_id, "gwb.lab");
        assert_eq!(
            (sa.remote_host.as_str(), sa.remote_port),
            ("192.0.2.2", 4500)
        );
        assert_eq!(sa.children.len(), 1);
        let child = &sa.children[0];
        assert_eq!(
            (child.name.as_str(), child.state.as_str()),
            ("lan", "INSTALLED")
        );
        assert!(child.in_udp && child.has_carried());
        assert_eq!((child.packets_out, child.bytes_out), (6, 504));
        assert_eq!(child.local, ["10.1.0.0/24", "10.1.1.0/24"]);
        assert_eq!(child.remote, ["10.2.0.0/24", "10.2.1.0/24"]);
        assert_eq!(child.facts["encr-alg"], "AES_GCM_16");
    }

    #[test]
    fn no_sas_are_no_sas() {
        assert!(parse("list-sas reply {\n}\n").is_empty());
        assert!(parse("").is_empty());
    }
}
