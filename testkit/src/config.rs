//! Configuration files for labs, written as an operator writes them.

use std::fmt::Write;

use crate::TestClient;

/// A realm of a configuration.
#[derive(Clone, Debug)]
pub struct RealmText<'a> {
    /// Its name.
    pub name: &'a str,
    /// JOSE algorithm names.
    pub algorithms: &'a [&'a str],
    /// Lines of its `schedule` table.
    pub schedule: &'a str,
    /// Its clients.
    pub clients: Vec<ClientText>,
}

/// A client of a realm.
#[derive(Clone, Debug)]
pub struct ClientText(String);

impl ClientText {
    /// A client with further lines of its table, and its grants' lines (see [`grant`]).
    #[must_use]
    pub fn new(client: &TestClient, lines: &str, grants: &[String]) -> Self {
        let members: Vec<String> =
            client.jwk().iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let key = members.join(", ");
        let mut text = format!("id = \"{}\"\nkeys = [{{ {key} }}]\n{lines}\n", client.id());
        for grant in grants {
            text.push_str(grant);
        }
        Self(text)
    }
}

/// A grant for these audiences, with further lines.
#[must_use]
pub fn grant(name: &str, audiences: &[&str], lines: &str) -> String {
    format!("[[realms.clients.grants]]\nname = \"{name}\"\naudiences = {audiences:?}\n{lines}\n")
}

/// A whole configuration: addresses, further top-level lines and tables, realms.
pub(crate) fn text(
    url: &str,
    listen: &str,
    admin: &str,
    top: &str,
    realms: &[RealmText<'_>],
) -> String {
    let mut text =
        format!("base_url = \"{url}\"\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n{top}\n");
    for realm in realms {
        // Writing into a string does not fail.
        let _ = write!(
            text,
            "[[realms]]\nname = \"{0}\"\nissuer = \"{url}/{0}\"\nalgorithms = {1:?}\n\
             [realms.schedule]\n{2}\n",
            realm.name, realm.algorithms, realm.schedule
        );
        for client in &realm.clients {
            let _ = write!(text, "[[realms.clients]]\n{}", client.0);
        }
    }
    text
}
