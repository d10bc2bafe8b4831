-- The table of the design that this project ports. Every peer starts with it, empty.
DROP TABLE IF EXISTS messages;

CREATE TABLE messages (
    id uuid PRIMARY KEY,
    sender_id text NOT NULL,
    recipient_id text NOT NULL,
    encrypted_content text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);

CREATE INDEX messages_recipient_delivered ON messages (recipient_id, delivered_at);
CREATE INDEX messages_sender_created ON messages (sender_id, created_at);
