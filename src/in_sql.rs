//! Types of ours in SQL: simple ones, and rows. sqlx derives this, too, but is built a second time for it.

/// `$name` as a value of a query: how it becomes a `$simple`, and is read from one.
macro_rules! in_sql {
    ($name:ident as $simple:ty: |$value:ident| $out:expr, |$read:ident| $in:expr) => {
        impl sqlx::Type<sqlx::Postgres> for $name {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                <$simple as sqlx::Type<sqlx::Postgres>>::type_info()
            }

            fn compatible(ty: &sqlx::postgres::PgTypeInfo) -> bool {
                <$simple as sqlx::Type<sqlx::Postgres>>::compatible(ty)
            }
        }

        impl sqlx::postgres::PgHasArrayType for $name {
            fn array_type_info() -> sqlx::postgres::PgTypeInfo {
                <$simple as sqlx::postgres::PgHasArrayType>::array_type_info()
            }
        }

        impl sqlx::Encode<'_, sqlx::Postgres> for $name {
            fn encode_by_ref(
                &self,
                buffer: &mut sqlx::postgres::PgArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                let $value = self;
                <$simple as sqlx::Encode<sqlx::Postgres>>::encode($out, buffer)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Postgres> for $name {
            fn decode(value: sqlx::postgres::PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                let $read = <$simple as sqlx::Decode<sqlx::Postgres>>::decode(value)?;
                $in
            }
        }
    };
}
pub(crate) use in_sql;

/// A struct that is a row: each field is read from the column of its name.
macro_rules! row {
    ($(#[$of_all:meta])* $seen:vis struct $name:ident { $($(#[$of_one:meta])* $one_seen:vis $field:ident: $kind:ty),+ $(,)? }) => {
        $(#[$of_all])*
        $seen struct $name {
            $($(#[$of_one])* $one_seen $field: $kind),+
        }

        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $name {
            fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                use sqlx::Row as _;
                Ok(Self { $($field: row.try_get(stringify!($field))?),+ })
            }
        }
    };
}
pub(crate) use row;
