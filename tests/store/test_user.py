"""`User.public_key` on a host's own models, whatever their keys and base classes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    aliased,
    declared_attr,
    mapped_column,
)

from flask_e2emsg.errors import ConfigurationError, UnusableKey
from flask_e2emsg.protocol.values import now
from flask_e2emsg.store.accounts import Accounts, PublicKey
from flask_e2emsg.store.database import Database
from flask_e2emsg.store.models import Base as MessagingBase
from flask_e2emsg.store.models import accounts
from flask_e2emsg.store.user import MessagingUserMixin, known_to_host

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


class Base(DeclarativeBase):
    pass


class IntegerUser(MessagingUserMixin, Base):
    __tablename__ = "integer_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class UuidUser(MessagingUserMixin, Base):
    __tablename__ = "uuid_users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]


class UuidTextUser(MessagingUserMixin, Base):
    __tablename__ = "uuid_text_users"

    id: Mapped[str] = mapped_column(
        sa.Uuid(as_uuid=False), primary_key=True, default=lambda: str(uuid4())
    )
    name: Mapped[str]


class TextUser(MessagingUserMixin, Base):
    __tablename__ = "text_users"

    id: Mapped[str] = mapped_column(
        sa.String(64), primary_key=True, default=lambda: f"id of {uuid4()}"
    )
    name: Mapped[str]


class NamedUser(MessagingUserMixin, Base):
    __tablename__ = "named_users"
    __e2emsg_user_id__ = "username"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column("login", default=lambda: f"login {uuid4()}")
    name: Mapped[str]


MODELS: list[Any] = [IntegerUser, UuidUser, UuidTextUser, TextUser, NamedUser]


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def model(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def engine(store_url: str, connect_to: Callable[[str], Engine]) -> Iterator[Engine]:
    """A host's engine on a database with its own tables and the messaging tables."""
    engine = connect_to(store_url)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def directory(engine: Engine) -> Iterator[Accounts]:
    """The key directory as the REST routes see it: committed rows, on connections of their own."""
    database = Database(engine)
    directory = Accounts(database)
    # The first connection switches SQLite to WAL, which waits for the transactions of others.
    directory.find("nobody")
    yield directory
    database.dispose()


def user_id_of(user: Any) -> str:
    """The JWT identity."""
    return str(user.username if isinstance(user, NamedUser) else user.id)


def saved(session: Session, model: Any, **values: Any) -> Any:
    user = model(name="alice", **values)
    session.add(user)
    session.commit()
    return user


def published(directory: Accounts, user: Any) -> PublicKey:
    key = directory.public_key(user_id_of(user))
    assert key is not None
    return key


class TestOnEveryKindOfKey:
    def test_a_new_user_has_no_key_and_no_account(self, session: Session, model: Any) -> None:
        assert model(name="nobody").public_key is None
        user = saved(session, model)
        assert user.public_key is None
        assert session.scalar(select(sa.func.count()).select_from(accounts)) == 0

    def test_a_key_given_at_creation_is_in_the_directory(
        self, session: Session, model: Any, directory: Accounts
    ) -> None:
        user = saved(session, model, public_key=KEY)
        assert user.public_key == KEY
        assert (published(directory, user).public_key, published(directory, user).key_version) == (
            KEY,
            1,
        )

    def test_a_key_set_later_is_in_the_directory(
        self, session: Session, model: Any, directory: Accounts
    ) -> None:
        user = saved(session, model)
        user.public_key = KEY
        session.commit()
        assert user.public_key == published(directory, user).public_key == KEY

    def test_a_key_published_by_the_client_is_the_users_key(
        self, session: Session, model: Any, directory: Accounts
    ) -> None:
        user = saved(session, model)
        directory.set_public_key(user_id_of(user), KEY)
        assert user.public_key == KEY

    def test_queries_see_keys_of_users_with_and_without_account(
        self, session: Session, model: Any, directory: Accounts
    ) -> None:
        with_key, without = saved(session, model, public_key=KEY), saved(session, model)
        with_account = saved(session, model)
        directory.ensure(user_id_of(with_account))
        missing = session.scalars(select(model).where(model.public_key.is_(None))).all()
        assert set(missing) == {without, with_account}
        assert session.scalars(select(model).where(model.public_key == KEY)).all() == [with_key]
        rows = session.execute(select(model.id, model.public_key))
        assert {user_id: key for user_id, key in rows} == {
            with_key.id: KEY,
            without.id: None,
            with_account.id: None,
        }

    def test_known_to_the_host_is_who_has_a_row(
        self, session: Session, model: Any, engine: Engine
    ) -> None:
        user_id = user_id_of(saved(session, model))
        with engine.connect() as connection:
            assert known_to_host(Base.metadata, connection, user_id)
            for other in (f" {user_id}", f"{user_id} ", f"0{user_id}", f"+{user_id}", "", "\0"):
                assert not known_to_host(Base.metadata, connection, other)


def test_a_database_that_ignores_case_does_not_decide_who_is_known(
    sqlite_url: str, connect_to: Callable[[str], Engine]
) -> None:
    class Local(DeclarativeBase):
        pass

    class Member(MessagingUserMixin, Local):
        __tablename__ = "members"

        id: Mapped[str] = mapped_column(sa.String(64, collation="NOCASE"), primary_key=True)

    engine = connect_to(sqlite_url)
    Local.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Member(id="Alice"))
        session.commit()
    with engine.connect() as connection:
        known = [i for i in ("Alice", "alice") if known_to_host(Local.metadata, connection, i)]
    assert known == ["Alice"]


class TestWriting:
    @pytest.fixture
    def user(self, session: Session) -> IntegerUser:
        user = saved(session, IntegerUser, public_key=KEY)
        assert isinstance(user, IntegerUser)
        return user

    def test_another_key_is_the_next_version_at_a_later_time(
        self, session: Session, user: IntegerUser, directory: Accounts
    ) -> None:
        hour_ago = now() - timedelta(hours=1)
        session.execute(sa.update(accounts).values(key_updated_at=hour_ago))
        user.public_key = OTHER_KEY
        session.commit()
        after = published(directory, user)
        assert (after.public_key, after.key_version) == (OTHER_KEY, 2)
        assert after.updated_at > hour_ago

    def test_the_same_key_again_changes_nothing(
        self, session: Session, user: IntegerUser, directory: Accounts
    ) -> None:
        before = published(directory, user)
        user.public_key = KEY
        session.commit()
        assert published(directory, user) == before

    def test_none_removes_the_key_and_counts_as_a_change(
        self, session: Session, user: IntegerUser, directory: Accounts
    ) -> None:
        user.public_key = None
        session.commit()
        assert user.public_key is None
        assert directory.public_key(str(user.id)) is None
        user.public_key = KEY
        session.commit()
        assert published(directory, user).key_version == 3

    def test_none_is_no_change_where_there_is_no_key(
        self, session: Session, directory: Accounts
    ) -> None:
        user = saved(session, IntegerUser)
        directory.ensure(str(user.id))
        user.public_key = None
        session.commit()
        columns = select(accounts.c.key_version, accounts.c.key_updated_at)
        assert session.execute(columns).all() == [(0, None)]

    def test_none_makes_no_account(self, session: Session) -> None:
        user = saved(session, IntegerUser, public_key=None)
        user.public_key = None
        session.commit()
        assert session.scalar(select(sa.func.count()).select_from(accounts)) == 0

    def test_a_rollback_undoes_it(
        self, session: Session, user: IntegerUser, directory: Accounts
    ) -> None:
        user.public_key = OTHER_KEY
        session.flush()
        session.rollback()
        assert user.public_key == published(directory, user).public_key == KEY

    def test_a_rollback_before_the_flush_undoes_it_too(
        self, session: Session, user: IntegerUser
    ) -> None:
        user.public_key = OTHER_KEY
        session.rollback()
        session.commit()
        assert user.public_key == KEY

    def test_the_same_session_sees_it_at_once_and_others_after_the_commit(
        self, session: Session, user: IntegerUser, directory: Accounts
    ) -> None:
        user.public_key = OTHER_KEY
        assert user.public_key == OTHER_KEY
        assert session.scalar(select(IntegerUser.public_key)) == OTHER_KEY
        assert published(directory, user).public_key == KEY
        session.commit()
        assert published(directory, user).public_key == OTHER_KEY

    def test_an_account_of_before_keeps_its_mailbox(
        self, session: Session, directory: Accounts
    ) -> None:
        user = saved(session, IntegerUser)
        state = directory.ensure(str(user.id))
        user.public_key = KEY
        session.commit()
        assert directory.state(str(user.id)) == state

    def test_the_users_table_is_not_written(self, session: Session, user: IntegerUser) -> None:
        statements: list[str] = []

        def record(*event: Any) -> None:
            statements.append(event[2])

        sa.event.listen(session.get_bind(), "before_cursor_execute", record)
        user.public_key = OTHER_KEY
        session.commit()
        assert statements
        assert not [text for text in statements if "integer_users" in text and "UPDATE" in text]

    def test_other_changes_of_the_user_do_not_touch_the_account(
        self, session: Session, user: IntegerUser, directory: Accounts
    ) -> None:
        directory.set_public_key(str(user.id), OTHER_KEY)
        user.name = "renamed"
        session.commit()
        assert user.public_key == OTHER_KEY

    @pytest.mark.parametrize(
        "key", [b"", KEY[:31], KEY + b"!", bytes(32), b"\x01" + bytes(31)], ids=len
    )
    def test_what_is_no_usable_key_is_refused_where_it_is_assigned(
        self, session: Session, user: IntegerUser, key: bytes
    ) -> None:
        with pytest.raises(UnusableKey):
            user.public_key = key
        with pytest.raises(UnusableKey):
            IntegerUser(name="mallory", public_key=key)
        session.commit()
        assert user.public_key == KEY

    def test_text_is_no_key(self, user: IntegerUser) -> None:
        with pytest.raises(TypeError):
            user.public_key = "A" * 32  # type: ignore[assignment]

    def test_merging_writes_too(self, session: Session, user: IntegerUser) -> None:
        session.merge(IntegerUser(id=user.id, name="merged", public_key=OTHER_KEY))
        session.commit()
        assert user.public_key == OTHER_KEY


class TestLoading:
    def test_users_load_without_the_messaging_tables(self, session: Session) -> None:
        user = saved(session, IntegerUser)
        session.connection().execute(sa.text("ALTER TABLE e2emsg_accounts RENAME TO elsewhere"))
        session.expire_all()
        assert session.scalars(select(IntegerUser)).one().name == user.name
        session.rollback()

    def test_an_alias_has_keys_of_its_own(self, session: Session) -> None:
        saved(session, IntegerUser, public_key=KEY)
        saved(session, IntegerUser)
        first, second = aliased(IntegerUser), aliased(IntegerUser)
        pairs = select(first.public_key, second.public_key).where(first.id < second.id)
        assert session.execute(pairs).all() == [(KEY, None)]

    def test_a_query_may_name_accounts_itself(self, session: Session) -> None:
        saved(session, IntegerUser, public_key=KEY)
        saved(session, IntegerUser, public_key=OTHER_KEY)
        joined = select(IntegerUser.public_key, accounts.c.public_key).join(
            accounts, accounts.c.user_id == sa.cast(IntegerUser.id, sa.String)
        )
        assert sorted(map(tuple, session.execute(joined))) == [(KEY, KEY), (OTHER_KEY, OTHER_KEY)]


class TestKnownToHost:
    @pytest.mark.parametrize(
        "user_id", ["abc", "-1", "2147483648", "9223372036854775808", "9" * 200, "1_0", "1.0", "²"]
    )
    def test_what_cannot_be_a_key_is_nobody(
        self, session: Session, engine: Engine, user_id: str
    ) -> None:
        saved(session, IntegerUser)
        with engine.connect() as connection:
            assert not known_to_host(Base.metadata, connection, user_id)

    def test_another_spelling_of_a_uuid_is_nobody(self, session: Session, engine: Engine) -> None:
        text = "6f1c2c1e-9d1b-4b7e-8a3c-0123456789ab"
        saved(session, UuidUser, id=UUID(text))
        saved(session, UuidTextUser, id=text)
        others = [text.upper(), text.replace("-", ""), f"{{{text}}}", f"urn:uuid:{text}"]
        with engine.connect() as connection:
            for other in others:
                assert not known_to_host(Base.metadata, connection, other)

    def test_a_deleted_user_is_nobody(self, session: Session, engine: Engine) -> None:
        user = saved(session, IntegerUser)
        session.delete(user)
        session.commit()
        with engine.connect() as connection:
            assert not known_to_host(Base.metadata, connection, "1")

    def test_users_of_another_app_in_the_process_are_not_ours(
        self, session: Session, engine: Engine
    ) -> None:
        saved(session, IntegerUser)
        with engine.connect() as connection:
            assert not known_to_host(sa.MetaData(), connection, "1")

    def test_rows_that_are_no_users_are_nobody(self, engine: Engine) -> None:
        class Local(DeclarativeBase):
            pass

        class Person(Local):
            __tablename__ = "persons"

            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]

            @declared_attr.directive
            def __mapper_args__(cls) -> dict[str, Any]:
                return {"polymorphic_on": "kind", "polymorphic_identity": cls.__name__}

        class Member(MessagingUserMixin, Person):
            pass

        class Moderator(Member):
            pass

        Local.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Person(id=1), Member(id=2), Moderator(id=3, public_key=KEY)])
            session.commit()
            assert session.scalars(select(Member.public_key).order_by(Member.id)).all() == [
                None,
                KEY,
            ]
        with engine.connect() as connection:
            known = [n for n in "1234" if known_to_host(Local.metadata, connection, n)]
        assert known == ["2", "3"]
        Local.metadata.drop_all(engine)


class TestBases:
    def test_flask_sqlalchemy_models(self, store_url: str) -> None:
        app, db = Flask(__name__), SQLAlchemy()
        app.config["SQLALCHEMY_DATABASE_URI"] = store_url

        class Member(MessagingUserMixin, db.Model):  # type: ignore[name-defined, misc]
            id: Mapped[int] = mapped_column(primary_key=True)

        db.init_app(app)
        with app.app_context():
            db.create_all()
            db.session.add_all([Member(public_key=KEY), Member()])
            db.session.commit()
            assert db.session.scalars(
                select(Member.id).where(Member.public_key.is_(None))
            ).all() == [2]
            with db.engine.connect() as connection:
                assert known_to_host(db.metadata, connection, "2")
            db.session.remove()
            db.drop_all()
            db.engine.dispose()

    def test_dataclass_models(self, engine: Engine) -> None:
        class Local(MappedAsDataclass, DeclarativeBase):
            pass

        class Member(MessagingUserMixin, Local):
            __tablename__ = "members"

            id: Mapped[int] = mapped_column(primary_key=True, init=False)
            name: Mapped[str]

        Local.metadata.create_all(engine)
        with Session(engine) as session:
            member = Member("alice")
            member.public_key = KEY
            session.add(member)
            session.commit()
            assert session.scalars(select(Member.public_key)).one() == KEY
        Local.metadata.drop_all(engine)

    def test_a_model_of_a_table_that_is_made_elsewhere(self, engine: Engine) -> None:
        class Local(DeclarativeBase):
            pass

        table = sa.Table("members", Local.metadata, sa.Column("no", sa.Integer, primary_key=True))

        class Member(MessagingUserMixin, Local):
            __table__ = table
            number = table.c.no

        Local.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Member(number=7, public_key=KEY))
            session.commit()
            assert session.scalars(select(Member.public_key)).one() == KEY
            assert session.scalars(select(accounts.c.user_id)).one() == "7"
        Local.metadata.drop_all(engine)

    def test_the_table_gets_no_column(self, model: Any) -> None:
        assert "public_key" not in model.__table__.columns
        assert Base.metadata.tables.keys().isdisjoint(MessagingBase.metadata.tables)


class TestMistakes:
    """Each is told while the class is made, with the cure."""

    def test_a_key_of_several_columns_needs_a_named_one(self) -> None:
        with pytest.raises(ConfigurationError, match="__e2emsg_user_id__"):

            class Member(MessagingUserMixin, fresh_base()):  # type: ignore[misc]
                __tablename__ = "members"
                tenant: Mapped[int] = mapped_column(primary_key=True)
                number: Mapped[int] = mapped_column(primary_key=True)

    def test_a_name_that_is_no_column(self) -> None:
        with pytest.raises(ConfigurationError, match="__e2emsg_user_id__"):

            class Member(MessagingUserMixin, fresh_base()):  # type: ignore[misc]
                __tablename__ = "members"
                __e2emsg_user_id__ = "nickname"
                id: Mapped[int] = mapped_column(primary_key=True)

    def test_a_type_without_one_text(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Member\.id"):

            class Member(MessagingUserMixin, fresh_base()):  # type: ignore[misc]
                __tablename__ = "members"
                id: Mapped[bytes] = mapped_column(sa.LargeBinary(16), primary_key=True)

    def test_a_key_column_of_the_models_own(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Member\.public_key"):

            class Member(MessagingUserMixin, fresh_base()):  # type: ignore[misc]
                __tablename__ = "members"
                id: Mapped[int] = mapped_column(primary_key=True)
                public_key: Mapped[bytes | None]


def fresh_base() -> Any:
    class Local(DeclarativeBase):
        pass

    return Local
