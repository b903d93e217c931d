//! A frame of every row that travels.

use cuda_api::Call;
use cuda_api::rows::Sample;
use cuda_api::wire::Wire;

/// A row of the call table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its wire id.
    pub id: u32,
    /// Its name.
    pub name: &'static str,
    sample: fn(u64) -> Vec<u8>,
}

impl Row {
    /// The argument bytes of a frame that the worker can parse, made from a seed.
    pub fn sample(&self, seed: u64) -> Vec<u8> {
        (self.sample)(seed)
    }
}

fn row<C: Call>() -> Row
where
    C::In<'static>: Sample,
{
    let sample = |seed| {
        let mut bytes = Vec::new();
        C::In::<'static>::sample(seed).put(&mut bytes);
        bytes
    };
    Row { id: C::ID, name: C::NAME, sample }
}

macro_rules! chapter {
    ($chapter:ident; $($name:ident)*) => {
        mod $chapter {
            pub(super) fn add(_to: &mut Vec<super::Row>) {
                $( _to.push(super::row::<cuda_api::calls::$chapter::row::$name>()); )*
            }
        }
    };
}
cuda_api::for_each_row!(chapter);

/// Every row that travels.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    launch::add(&mut rows);
    copy::add(&mut rows);
    stream::add(&mut rows);
    event::add(&mut rows);
    memory::add(&mut rows);
    entry::add(&mut rows);
    device::add(&mut rows);
    context::add(&mut rows);
    module::add(&mut rows);
    library::add(&mut rows);
    graph::add(&mut rows);
    virtual_memory::add(&mut rows);
    texture::add(&mut rows);
    interop::add(&mut rows);
    rows
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_row_is_missing() {
        use cuda_api::Class;
        let travels = |row: &&cuda_api::CallInfo| {
            matches!(row.class, Class::Posted | Class::Sync) && row.over.is_none()
        };
        assert_eq!(super::all().len(), cuda_api::all_calls().filter(travels).count());
    }
}
