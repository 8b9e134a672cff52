-- The server itself: one row.
CREATE TABLE server (
    only_one    INTEGER PRIMARY KEY CHECK (only_one = 1),
    -- Eight hexadecimal digits, in every client's identity.
    id          TEXT NOT NULL,
    key_kind    TEXT NOT NULL,
    certificate BLOB NOT NULL,
    key         BLOB NOT NULL,
    not_after   INTEGER NOT NULL,
    uplink      TEXT,
    crl_number  INTEGER NOT NULL DEFAULT 0,
    -- Counts changes, and which of them the daemon's files show.
    generation  INTEGER NOT NULL DEFAULT 0,
    published   INTEGER NOT NULL DEFAULT 0,
    -- Which change the running daemon has said that it took up.
    confirmed   INTEGER NOT NULL DEFAULT 0,
    -- What was done to systemd, so that it can be undone: 'enabled', or 'written' if the unit file is ours as well.
    unit        TEXT CHECK (unit IN ('enabled', 'written')),
    -- In a backup: the [server] section as it stood.
    section     TEXT
) STRICT;

-- Addresses, pools and resolvers, in their order.
CREATE TABLE setting (
    kind     TEXT NOT NULL CHECK (kind IN ('address', 'pool', 'dns')),
    position INTEGER NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (kind, position)
) STRICT, WITHOUT ROWID;

-- Every serial number ever given; nothing is deleted here.
CREATE TABLE serial (
    number BLOB PRIMARY KEY,
    given  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The server's own certificates; the last is in use.
CREATE TABLE server_certificate (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    serial     BLOB NOT NULL UNIQUE REFERENCES serial (number),
    der        BLOB NOT NULL,
    key        BLOB NOT NULL,
    not_after  INTEGER NOT NULL
) STRICT;

CREATE TABLE user (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    suspended  INTEGER,
    nt_hash    BLOB CHECK (length(nt_hash) = 16),
    -- Address in the files that were handed out for the password.
    handed_out TEXT,
    -- When Apple's devices connect by themselves, in those files; none: by hand. JSON.
    on_demand  TEXT
) STRICT;

CREATE TABLE device (
    id           INTEGER PRIMARY KEY,
    user         INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    -- Stays when its user is renamed: it is in the certificate.
    identity     TEXT NOT NULL UNIQUE,
    p12_password TEXT NOT NULL,
    -- Address in the files that were handed out for it.
    handed_out   TEXT,
    -- When Apple's devices connect by themselves; none: by hand. JSON.
    on_demand    TEXT,
    UNIQUE (user, name)
) STRICT;

-- Clients' certificates. Those of a device that is gone stay, for the revocation list.
CREATE TABLE certificate (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    serial     BLOB NOT NULL UNIQUE REFERENCES serial (number),
    device     INTEGER REFERENCES device (id) ON DELETE SET NULL,
    der        BLOB NOT NULL,
    -- PKCS#8; none where it never left the device, or is of no use any more.
    key        BLOB,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    revoked    INTEGER,
    -- CRLReason (RFC 5280 §5.3.1).
    reason     INTEGER,
    CHECK ((revoked IS NULL) = (reason IS NULL))
) STRICT;

CREATE INDEX certificate_of_device ON certificate (device);
