//! The text of `cygnet.toml`, to which sections are added and in which one's own are replaced; nothing else in it is
//! touched.

use std::ops::Range;
use std::path::Path;

use cygnet_config::{Config, default_interface};
use cygnet_profile::read::quoted;
use ipnet::IpNet;
use toml::{Table, Value};

/// No interface has a longer name.
const INTERFACE_MAX: usize = 15;

/// A configuration as text.
#[derive(PartialEq, Eq)]
pub(in super::super) struct Sections {
    text: String,
}

/// A tunnel between offices that can be taken out.
pub(in super::super) struct Site {
    /// The text without it.
    pub(in super::super) rest: String,
    /// The folder of its secret.
    pub(in super::super) folder: Option<String>,
    /// `cygnet site add` wrote it, and files for the other office beside; else it is an import of such files.
    pub(in super::super) was_added: bool,
}

/// A tunnel that an earlier import wrote.
pub(super) struct Replaced {
    /// The folder of its files.
    pub(super) folder: Option<String>,
}

impl Sections {
    /// The file; an empty text where there is none.
    pub(in super::super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        if path.is_symlink() {
            return Err(format!(
                "{shown} is a link: name the file it leads to with --config, so that it stays one"
            ));
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(format!(
                    "cannot read {shown}: {error}; try again with sudo?"
                ));
            }
        };
        Config::check_syntax(&shown.to_string(), &text)
            .map_err(|error| format!("{error}\nmend it first (`cygnet check`)"))?;
        if let Some(line) = mark_in_value(&text) {
            return Err(format!(
                "{shown}, line {line}: a mark of `cygnet import` or `cygnet site` stands inside a value there, so it cannot be told what \
                 they wrote: change that value first"
            ));
        }
        Ok(Self { text })
    }

    pub(in super::super) fn of(text: String) -> Self {
        Self { text }
    }

    pub(in super::super) fn text(&self) -> &str {
        &self.text
    }

    fn table(&self) -> Table {
        self.text.parse().unwrap_or_default()
    }

    /// The text with the section of a site's tunnel at its end.
    pub(in super::super) fn with_site(&self, name: &str, section: &str) -> String {
        let title = tunnel_title(name);
        self.with_section(&format!(
            "{}\n{section}{}\n",
            begin_site(&title, name),
            end(&title)
        ))
    }

    /// A site's tunnel, as it was written by `cygnet site add` or an import of the other end's file.
    ///
    /// # Errors
    /// There is none: half a sentence.
    pub(in super::super) fn site(&self, name: &str) -> Result<Site, String> {
        let title = tunnel_title(name);
        let tunnel = self.tunnels().find(|(tunnel, _)| tunnel == name);
        let Some((_, tunnel)) = tunnel else {
            return Err(format!("there is no tunnel {name}"));
        };
        let by_site = self.block_from(&begin_site(&title, name), &title);
        let was_added = by_site.is_some();
        let Some(at) = by_site.or_else(|| self.block(&title)) else {
            return Err(format!("the tunnel {name} was written by hand"));
        };
        if tunnel.contains_key("virtual_address") {
            return Err(format!(
                "the tunnel {name} leads to a server, not to another office"
            ));
        }
        let (before, after) = (self.text.get(..at.start), self.text.get(at.end..));
        let before = before.unwrap_or_default();
        // With the empty line that was put before it.
        let before = match before.strip_suffix("\n\n") {
            Some(_) => before.get(..before.len() - 1).unwrap_or_default(),
            None => before,
        };
        let rest = [before, after.unwrap_or_default()].concat();
        let folder = folder_of(&tunnel, name);
        // What cannot be read any more may name it.
        let others: Option<Table> = rest.parse().ok();
        let is_named = |folder: &String| {
            let mut values = others.iter().flat_map(Table::values);
            others.is_none() || values.any(|value| leads_through(value, folder))
        };
        Ok(Site {
            folder: folder.filter(|folder| !is_named(folder)),
            rest,
            was_added,
        })
    }

    /// The text with a section at its end.
    pub(in super::super) fn with_section(&self, section: &str) -> String {
        let mut text = self.text.clone();
        if !text.is_empty() {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push('\n');
        }
        text.push_str(section);
        text
    }

    /// A new tunnel's section, which names an interface where it has to.
    pub(in super::super) fn with_own_interface(&self, name: &str, section: String) -> String {
        let interface = self.own_interface(name);
        match interface.zip(section.split_once('\n')) {
            Some((interface, (header, keys))) => {
                format!("{header}\ninterface = {}\n{keys}", quoted(&interface))
            }
            None => section,
        }
    }

    /// Whether there is any tunnel.
    pub(in super::super) fn has_tunnels(&self) -> bool {
        self.tunnels().next().is_some()
    }

    /// Whether there is a tunnel of this name.
    pub(in super::super) fn has_tunnel(&self, name: &str) -> bool {
        self.tunnels().any(|(tunnel, _)| tunnel == name)
    }

    /// The TUN interfaces of tunnels and server, as far as they can be told.
    pub(in super::super) fn interfaces(&self) -> Vec<String> {
        self.interfaces_beside(None)
    }

    /// The same without that of the tunnel of this name.
    fn interfaces_beside(&self, without: Option<&str>) -> Vec<String> {
        let written = |table: &Table, default: String| {
            let name = table.get("interface").and_then(Value::as_str);
            name.map_or(default, str::to_owned)
        };
        let tunnels = self
            .tunnels()
            .filter(|(name, _)| Some(name.as_str()) != without);
        let tunnels = tunnels.map(|(name, tunnel)| written(&tunnel, default_interface(&name)));
        let server = self
            .table()
            .get("server")
            .and_then(Value::as_table)
            .cloned();
        let server = server.map(|server| written(&server, "cyg-srv".to_owned()));
        tunnels.chain(server).collect()
    }

    /// The interface that a new tunnel's section has to name, where another has taken the one that it would have without:
    /// a name of an interface is short, and the tunnels' may begin alike.
    pub(in super::super) fn own_interface(&self, name: &str) -> Option<String> {
        let taken = self.interfaces_beside(Some(name));
        let default = default_interface(name);
        if !taken.contains(&default) {
            return None;
        }
        let numbered = (2..1000).map(|number| {
            let end = format!("-{number}");
            let room = default.len().min(INTERFACE_MAX - end.len());
            format!("{}{end}", default.get(..room).unwrap_or_default())
        });
        numbered.into_iter().find(|it| !taken.contains(it))
    }

    /// The networks that tunnels name as the other side's, each with the tunnel's name.
    pub(in super::super) fn remote_networks(&self) -> Vec<(String, IpNet)> {
        let mut found = Vec::new();
        for (name, tunnel) in self.tunnels() {
            let children = tunnel.get("child").and_then(Value::as_table);
            let children = children
                .into_iter()
                .flat_map(Table::values)
                .filter_map(Value::as_table);
            for table in children.chain([&tunnel]) {
                let list = table.get("remote_networks").and_then(Value::as_array);
                let list = list.into_iter().flatten().filter_map(Value::as_str);
                found.extend(list.filter_map(|net| Some((name.clone(), net.parse().ok()?))));
            }
        }
        found
    }

    fn tunnels(&self) -> impl Iterator<Item = (String, Table)> {
        let mut table = self.table();
        let tunnels = match table.remove("tunnel") {
            Some(Value::Table(tunnels)) => tunnels,
            _ => Table::new(),
        };
        tunnels.into_iter().filter_map(|(name, value)| match value {
            Value::Table(tunnel) => Some((name, tunnel)),
            _ => None,
        })
    }

    /// Whether a tunnel of this name may be written: there is none, or it is one of ours and may be `replace`d.
    pub(super) fn tunnel(&self, name: &str, replace: bool) -> Result<Option<Replaced>, String> {
        let table = self.table();
        let tunnels = table.get("tunnel").and_then(Value::as_table);
        let Some(tunnel) = tunnels.and_then(|it| it.get(name)) else {
            return Ok(None);
        };
        let ours = self.block(&tunnel_title(name)).is_some();
        match (ours, replace) {
            (true, true) => {
                let tunnel = tunnel.as_table();
                let folder = tunnel.and_then(|tunnel| folder_of(tunnel, name));
                Ok(Some(Replaced { folder }))
            }
            (true, false) => Err(format!(
                "there is a tunnel {name} already, from an earlier import: --replace it, or give this one another --name"
            )),
            (false, _) => Err(format!(
                "there is a tunnel {name} already, which was not imported: give this one another --name"
            )),
        }
    }

    /// Refuses a second tunnel by which this machine would be one and the same to one server: that ends the one when the
    /// other calls, and both say that they are up. `section` is the new one's, and `content` gives what the files hold that
    /// tunnels name.
    pub(super) fn check_is_alone(
        &self,
        name: &str,
        section: &str,
        content: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        let new: Table = section.parse().unwrap_or_default();
        let new = (new.get("tunnel").and_then(|it| it.get(name))).and_then(Value::as_table);
        let table = self.table();
        let tunnels = table.get("tunnel").and_then(Value::as_table);
        let (Some(new), Some(tunnels)) = (new, tunnels) else {
            return Ok(());
        };
        let mut others = tunnels.iter().filter(|(other, _)| *other != name);
        let Some((other, what)) = others.find_map(|(other, tunnel)| {
            let what = in_common(new, tunnel.as_table()?, content)?;
            Some((other, what))
        }) else {
            return Ok(());
        };
        let remedy = match self.block(&tunnel_title(other)).is_some() {
            true => format!("`--name {other} --replace` writes that one anew"),
            false => "take that one out of the configuration first".to_owned(),
        };
        Err(format!(
            "there is the tunnel {other} to the same server with {what} already, and of two such tunnels one alone works: \
             {remedy}"
        ))
    }

    /// A sentence on each two tunnels of which one alone works, as a person may write them.
    pub(in super::super) fn warnings(
        &self,
        content: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Vec<String> {
        let table = self.table();
        let tunnels = table.get("tunnel").and_then(Value::as_table).into_iter();
        let tunnels = tunnels
            .flatten()
            .filter_map(|(name, it)| Some((name, it.as_table()?)));
        let tunnels: Vec<_> = tunnels.collect();
        let mut warnings = Vec::new();
        for (at, (first, a)) in tunnels.iter().enumerate() {
            for (second, b) in tunnels.iter().skip(at + 1) {
                if let Some(what) = in_common(a, b, content) {
                    warnings.push(format!(
                        "tunnels {first} and {second} call the same server with {what}: a server that takes them for one \
                         device lets the last one work alone"
                    ));
                }
            }
        }
        warnings
    }

    /// The text with the tunnel in it: where it was, or at the end.
    pub(super) fn with_tunnel(&self, name: &str, section: &str) -> String {
        self.with(&tunnel_title(name), section)
    }

    /// What an import writes of it.
    pub(super) fn written(&self, tunnel: &str, gateway: bool) -> String {
        let titles = [
            Some(tunnel_title(tunnel)),
            gateway.then(|| GATEWAY.to_owned()),
        ];
        let blocks = titles.into_iter().flatten();
        let blocks = blocks.filter_map(|title| self.text.get(self.block(&title)?));
        blocks.collect::<Vec<_>>().join("\n")
    }

    /// The text with `[gateway]` through the tunnel.
    pub(super) fn with_gateway(
        &self,
        tunnel: &str,
        lan: &[String],
        replace: bool,
    ) -> Result<String, String> {
        let ours = self.block(GATEWAY).is_some();
        if self.table().contains_key("gateway") && !(ours && replace) {
            let remedy = match ours {
                true => "--replace it",
                false => "write this tunnel there by hand",
            };
            return Err(format!(
                "there is a [gateway] already: {remedy}, or import without --gateway"
            ));
        }
        let lan = match lan {
            [one] => quoted(one),
            several => {
                let names: Vec<String> = several.iter().map(|it| quoted(it)).collect();
                format!("[{}]", names.join(", "))
            }
        };
        let section = format!("[gateway]\ntunnel = {}\nlan = {lan}\n", quoted(tunnel));
        Ok(self.with(GATEWAY, &section))
    }

    fn with(&self, title: &str, section: &str) -> String {
        let block = format!("{}\n{section}{}\n", begin(title), end(title));
        if let Some(at) = self.block(title) {
            let (before, after) = (self.text.get(..at.start), self.text.get(at.end..));
            return [before, Some(&block), after]
                .into_iter()
                .flatten()
                .collect();
        }
        self.with_section(&block)
    }

    /// Where a block of an import's stands, its marks included.
    fn block(&self, title: &str) -> Option<Range<usize>> {
        self.block_from(&begin(title), title)
    }

    fn block_from(&self, begin: &str, title: &str) -> Option<Range<usize>> {
        let mut at = 0;
        let mut start = None;
        for line in self.text.split_inclusive('\n') {
            let trimmed = line.trim_end();
            if trimmed == begin {
                start = Some(at);
            }
            at += line.len();
            if trimmed == end(title)
                && let Some(start) = start
            {
                return Some(start..at);
            }
        }
        None
    }
}

/// Whether a path through a folder of this name is anywhere in it.
fn leads_through(value: &Value, folder: &str) -> bool {
    match value {
        Value::String(path) => {
            let mut folders = Path::new(path).parent().into_iter().flat_map(Path::iter);
            folders.any(|name| name == folder)
        }
        Value::Array(values) => values.iter().any(|value| leads_through(value, folder)),
        Value::Table(table) => table.values().any(|value| leads_through(value, folder)),
        _ => false,
    }
}

/// The folder of a tunnel's files, if it was made for them.
fn folder_of(tunnel: &Table, name: &str) -> Option<String> {
    let mut files = ["certificate", "psk", "password"].into_iter();
    let file = files
        .find_map(|it| tunnel.get(it))
        .and_then(Value::as_str)?;
    let (folder, _) = file.split_once('/')?;
    // It is a name and nothing else.
    (folder.starts_with(name) && !folder.starts_with('.')).then(|| folder.to_owned())
}

/// What makes this machine the same device to the same server by both tunnels.
fn in_common(
    a: &Table,
    b: &Table,
    content: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Option<&'static str> {
    // Where none is said it is 500.
    let port = |it: &Table| {
        it.get("remote_port")
            .and_then(Value::as_integer)
            .unwrap_or(500)
    };
    if !servers(a).any(|it| servers(b).any(|other| it.eq_ignore_ascii_case(other)))
        || port(a) != port(b)
    {
        return None;
    }
    let certificate = |it: &Table| it.get("certificate")?.as_str().and_then(content);
    if who(a).is_some() && who(a) == who(b) {
        return Some("the same identity");
    }
    let own = certificate(a)?;
    (Some(own) == certificate(b)).then_some("the same certificate")
}

/// Who a tunnel says that we are, if it says so.
fn who(tunnel: &Table) -> Option<&str> {
    let said = tunnel.get("user").or_else(|| tunnel.get("identity"));
    said.and_then(Value::as_str)
}

/// Whom a tunnel calls.
fn servers(tunnel: &Table) -> impl Iterator<Item = &str> {
    let remote = tunnel.get("remote");
    let list = remote.and_then(Value::as_array).map(Vec::as_slice);
    let one = remote.map_or(&[][..], std::slice::from_ref);
    let servers = list.unwrap_or(one).iter();
    servers.filter_map(|server| server.as_str().or_else(|| server.get("address")?.as_str()))
}

const GATEWAY: &str = "[gateway]";

/// The first line that looks like a mark and is part of a value: marks are comments, without which a text means the same.
fn mark_in_value(text: &str) -> Option<usize> {
    let is_mark = |line: &str| {
        let begins = line.starts_with("# [") && line.contains("] was written by `cygnet ");
        begins || line.starts_with("# end of [")
    };
    let table = text.parse::<Table>().ok();
    let matters = |at: usize| {
        let lines = text.split_inclusive('\n').enumerate();
        let without: String = lines.filter(|(it, _)| *it != at).map(|it| it.1).collect();
        without.parse::<Table>().ok() != table
    };
    let marks = text.lines().enumerate().filter(|(_, line)| is_mark(line));
    marks
        .map(|(at, _)| at)
        .find(|at| matters(*at))
        .map(|at| at + 1)
}

fn tunnel_title(name: &str) -> String {
    format!("[tunnel.{name}]")
}

fn begin(title: &str) -> String {
    format!(
        "# {title} was written by `cygnet import`, and is replaced by `cygnet import --replace`, down to the end mark"
    )
}

fn begin_site(title: &str, name: &str) -> String {
    format!(
        "# {title} was written by `cygnet site add`; `cygnet site remove {name}` takes it out, down to the end mark"
    )
}

fn end(title: &str) -> String {
    format!("# end of {title}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = "[tunnel.home]\nremote = \"a\"\ncertificate = \"home/client.crt\"\n";

    #[test]
    fn what_is_there_stays_as_it_is() {
        let written = "# mine\n[daemon]\nlog = \"debug\" # loud";
        let once = Sections::of(written.into()).with_tunnel("home", SECTION);
        assert!(
            once.starts_with("# mine\n[daemon]\nlog = \"debug\" # loud\n\n#"),
            "{once}"
        );
        let more = format!("{once}# below\n[tunnel.other]\nremote = \"b\"\n");
        let again = Sections::of(more).with_tunnel("home", &SECTION.replace("\"a\"", "\"c\""));
        assert!(
            again.ends_with("# end of [tunnel.home]\n# below\n[tunnel.other]\nremote = \"b\"\n"),
            "{again}"
        );
        assert!(
            again.contains("remote = \"c\"") && !again.contains("remote = \"a\""),
            "{again}"
        );
        assert_eq!(again.matches("[tunnel.home]\n").count(), 2, "{again}");
    }

    #[test]
    fn what_tunnels_have_is_known() {
        let text = "[server]\n[tunnel.a-branch-with-a-long-name]\nremote_networks = [\"10.2.0.0/24\"]\n\
                    [tunnel.b]\ninterface = \"b0\"\n[tunnel.b.child.x]\nremote_networks = [\"fd00::/64\", \"?\"]\n";
        let sections = Sections::of(text.into());
        assert_eq!(sections.interfaces(), ["cyg-a-branch-wi", "b0", "cyg-srv"]);
        let found = sections.remote_networks().into_iter();
        let found: Vec<String> = found.map(|(name, net)| format!("{name} {net}")).collect();
        assert_eq!(
            found,
            ["a-branch-with-a-long-name 10.2.0.0/24", "b fd00::/64"]
        );
        assert!(sections.has_tunnel("b") && !sections.has_tunnel("x"));
    }

    #[test]
    fn a_site_is_taken_out_as_it_was_put_in() {
        const SITE: &str = "[tunnel.c]\nremote = \"any\"\npsk = \"c-2/shared.psk\"\n";
        for before in ["", "# mine\n", "# mine\n[daemon]\nlog = \"debug\" # loud\n"] {
            let text = Sections::of(before.into()).with_site("c", SITE);
            let after = "# below\n[tunnel.d]\nremote = \"b\"\n";
            let site = Sections::of(format!("{text}{after}"))
                .site("c")
                .expect("ours");
            assert_eq!(site.rest, format!("{before}{after}"));
            assert_eq!(site.folder.as_deref(), Some("c-2"));
            assert!(site.was_added);
            let imported = Sections::of(before.into()).with_tunnel("c", SITE);
            let site = Sections::of(imported).site("c").expect("ours");
            assert_eq!((site.rest.as_str(), site.was_added), (before, false));
        }
        let used = "[tunnel.d]\nremote = \"b\"\npsk = \"c-2/shared.psk\"\n";
        let both = Sections::of(used.into()).with_site("c", SITE);
        let site = Sections::of(both).site("c").expect("ours");
        assert_eq!((site.rest.as_str(), site.folder), (used, None));
        // However the path is written; in a comment it is none.
        for (text, kept) in [
            ("psk = './c-2/shared.psk'\n", true),
            ("psk = \"\\u0063-2/shared.psk\"\n", true),
            ("[a]\nx = [{ ca = \"/etc/cygnet/c-2/ca.crt\" }]\n", true),
            ("# psk = \"c-2/shared.psk\"\nx = \"c-2\"\n", false),
        ] {
            let both = Sections::of(text.into()).with_site("c", SITE);
            let site = Sections::of(both).site("c").expect("ours");
            assert_eq!(site.folder.is_none(), kept, "{text}");
        }

        let server = format!("{SECTION}virtual_address = true\n");
        for (text, told) in [
            (String::new(), "there is no tunnel"),
            (SITE.to_owned(), "written by hand"),
            (
                Sections::of(String::new()).with_tunnel("home", &server),
                "leads to a server",
            ),
        ] {
            let name = if text.contains("home") { "home" } else { "c" };
            let error = Sections::of(text).site(name).err().expect("refused");
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn only_what_an_import_wrote_is_replaced() {
        let own = Sections::of(Sections::of(String::new()).with_tunnel("home", SECTION));
        assert!(own.tunnel("other", false).is_ok_and(|it| it.is_none()));
        assert!(
            own.tunnel("home", false)
                .is_err_and(|it| it.contains("--replace"))
        );
        let replaced = own.tunnel("home", true).ok().flatten().expect("ours");
        assert_eq!(replaced.folder.as_deref(), Some("home"));
        let foreign = Sections::of(SECTION.into());
        assert!(
            foreign
                .tunnel("home", true)
                .is_err_and(|it| it.contains("not imported"))
        );
    }

    #[test]
    fn to_one_server_one_tunnel_is_the_same_device() {
        let own = Sections::of(Sections::of(String::new()).with_tunnel("home", SECTION));
        let crt = |path: &str| (path != "c/client.crt").then(|| b"A".to_vec());
        let of = |remote: &str, more: &str| format!("[tunnel.b]\nremote = {remote}\n{more}\n");
        const SAME: &str = "certificate = \"b/client.crt\"";
        let told = own.check_is_alone("b", &of("[\"x\", \"A\"]", SAME), &crt);
        let told = told.expect_err("the same certificate");
        assert!(told.contains("`--name home --replace`"), "{told}");
        let more = format!("remote_port = 500\n{SAME}");
        let told = own.check_is_alone("b", &of("\"a\"", &more), &crt);
        assert!(told.is_err(), "500 is what is meant without it");
        for section in [
            of("\"c\"", SAME),
            of("\"a\"", "certificate = \"c/client.crt\""),
            of("\"a\"", &format!("remote_port = 4501\n{SAME}")),
        ] {
            assert_eq!(own.check_is_alone("b", &section, &crt), Ok(()), "{section}");
        }
        // That one is replaced.
        assert_eq!(own.check_is_alone("home", SECTION, &crt), Ok(()));

        let by_hand = "[tunnel.x]\nremote = \"a\"\nuser = \"me\"\n";
        let by_hand = Sections::of(by_hand.into());
        let told = by_hand.check_is_alone("b", &of("\"a\"", "user = \"me\""), &crt);
        assert!(told.is_err_and(|it| it.contains("take that one out")));
        let told = by_hand.check_is_alone("b", &of("\"a\"", "user = \"you\""), &crt);
        assert_eq!(told, Ok(()));
    }

    #[test]
    fn two_that_are_one_device_are_told_of() {
        let tunnel = |name: &str, more: &str| format!("[tunnel.{name}]\nremote = \"s\"\n{more}\n");
        let told = |first: &str, second: &str| {
            let text = tunnel("a", first) + &tunnel("b", second);
            Sections::of(text).warnings(&|path| Some(path.as_bytes().to_vec()))
        };
        let one = told("certificate = \"x\"", "certificate = \"x\"");
        assert!(one.len() == 1 && one[0].contains("a and b"), "{one:?}");
        assert_eq!(told("identity = \"x\"", "identity = \"x\"").len(), 1);
        assert!(told("identity = \"x\"", "identity = \"y\"").is_empty());
        assert!(told("certificate = \"x\"", "certificate = \"y\"").is_empty());
        assert!(told("psk = \"x\"", "psk = \"x\"").is_empty());
        let several = "[tunnel.c]\nremote = [\"r\", { address = \"s\", identity = \"i\" }]\ncertificate = \"x\"\n";
        let text = tunnel("a", "certificate = \"x\"") + several;
        let read = |path: &str| Some(path.as_bytes().to_vec());
        assert_eq!(Sections::of(text).warnings(&read).len(), 1);
    }

    #[test]
    fn a_mark_inside_a_value_is_no_mark() {
        let own = Sections::of(String::new()).with_tunnel("home", SECTION);
        assert_eq!(mark_in_value(&own), None);
        let title = tunnel_title("home");
        for mark in [begin(&title), begin_site(&title, "home"), end(&title)] {
            let value = format!("[tunnel.a]\nremote = \"\"\"\n{mark}\n\"\"\"\n{own}");
            assert_eq!(mark_in_value(&value), Some(3), "{value}");
        }
    }

    #[test]
    fn a_text_is_one_line_whatever_is_in_it() {
        let odd = "a\n# end of [tunnel.home]\n\"'\u{7f}";
        let written = quoted(odd);
        assert_eq!(written.lines().count(), 1, "{written}");
        let table: Table = format!("x = {written}").parse().expect("TOML");
        assert_eq!(table.get("x").and_then(Value::as_str), Some(odd));
    }

    #[test]
    fn tunnels_that_begin_alike_have_interfaces_of_their_own() {
        let section = |name: &str| {
            format!(
                "[tunnel.{name}]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n"
            )
        };
        let mut sections = Sections::of(String::new());
        let mut found = Vec::new();
        for end in ["77", "78", "79"] {
            let name = format!("algovpn-203-0-113-{end}");
            let text = sections.with_own_interface(&name, section(&name));
            sections = Sections::of(sections.with_tunnel(&name, &text));
            found = sections.interfaces();
        }
        assert_eq!(
            found,
            ["cyg-algovpn-203", "cyg-algovpn-2-2", "cyg-algovpn-2-3"]
        );
        let good = Config::parse("t", sections.text(), &mut |path| Err(path.to_owned()));
        assert!(good.is_ok(), "{good:?}");
        // One that is written anew keeps its name.
        let first = "algovpn-203-0-113-77";
        assert_eq!(sections.own_interface(first), None);
        let third = sections.own_interface("algovpn-203-0-113-79");
        assert_eq!(third.as_deref(), Some("cyg-algovpn-2-3"));
        let server = Sections::of("[server]\npools = \"10.9.0.0/24\"\n".into());
        assert_eq!(server.own_interface("srv").as_deref(), Some("cyg-srv-2"));
    }

    #[test]
    fn there_is_one_gateway() {
        let lan = ["eth0".to_owned()];
        let text = Sections::of(String::new()).with_gateway("home", &lan, false);
        let text = text.expect("none was there");
        assert!(
            text.contains("[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n"),
            "{text}"
        );
        let again = Sections::of(text);
        assert!(again.with_gateway("b", &lan, false).is_err());
        let lans = ["eth0".to_owned(), "wlan0".to_owned()];
        let replaced = again.with_gateway("b", &lans, true).expect("ours");
        assert!(
            replaced.contains("tunnel = \"b\"\nlan = [\"eth0\", \"wlan0\"]\n"),
            "{replaced}"
        );
        assert!(!replaced.contains("\"home\""));
        let foreign = Sections::of("[gateway]\ntunnel = \"x\"\nlan = \"eth0\"\n".into());
        assert!(
            foreign
                .with_gateway("b", &lan, true)
                .is_err_and(|it| it.contains("by hand"))
        );
    }
}
