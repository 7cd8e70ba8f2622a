//! Requests that are taken in together: usually one, which then needs no allocation of its own.

use std::vec;

use crate::request::Request;

/// Requests that are taken in together.
#[derive(Debug)]
pub(crate) enum Batch {
    One(Request),
    Many(Vec<Request>),
}

impl Batch {
    pub(crate) fn as_slice(&self) -> &[Request] {
        match self {
            Self::One(request) => std::slice::from_ref(request),
            Self::Many(requests) => requests,
        }
    }
}

impl From<Request> for Batch {
    fn from(request: Request) -> Self {
        Self::One(request)
    }
}

impl From<Vec<Request>> for Batch {
    fn from(requests: Vec<Request>) -> Self {
        Self::Many(requests)
    }
}

impl IntoIterator for Batch {
    type Item = Request;
    type IntoIter = Requests;

    fn into_iter(self) -> Requests {
        match self {
            Self::One(request) => Requests::One(Some(request).into_iter()),
            Self::Many(requests) => Requests::Many(requests.into_iter()),
        }
    }
}

/// The requests of a batch, in their order.
pub(crate) enum Requests {
    One(std::option::IntoIter<Request>),
    Many(vec::IntoIter<Request>),
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        match self {
            Self::One(request) => request.next(),
            Self::Many(requests) => requests.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::One(request) => request.size_hint(),
            Self::Many(requests) => requests.size_hint(),
        }
    }
}
