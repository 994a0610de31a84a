//! What a caller can want of a service, and by which methods.

/// What a caller wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `score`: the model itself, at a path of the container that the deployment sets.
    Score,
    /// `swagger.json`: its description, likewise.
    Swagger,
    /// The service's root: is the container there? Likewise.
    Health,
    /// A path that the service's profile or its own list opens, passed on as it is.
    Open(Methods),
    /// A gRPC method, `/package.Service/Method`, passed on as it is.
    Grpc,
}

/// The methods of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Methods {
    /// `GET` alone.
    Get,
    /// `POST` alone.
    Post,
    /// Both.
    GetAndPost,
}

impl Endpoint {
    /// The methods that it takes.
    #[must_use]
    pub const fn methods(self) -> Methods {
        match self {
            Self::Score | Self::Swagger | Self::Health => Methods::GetAndPost,
            Self::Open(methods) => methods,
            // gRPC over HTTP/2, "Request-Headers": the method is POST.
            Self::Grpc => Methods::Post,
        }
    }

    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Swagger => "swagger",
            Self::Health => "health",
            Self::Open(_) => "open",
            Self::Grpc => "grpc",
        }
    }
}

impl Methods {
    /// Whether `method`, as it is sent, is one of them.
    #[must_use]
    pub fn allow(self, method: &str) -> bool {
        match self {
            Self::Get => method == "GET",
            Self::Post => method == "POST",
            Self::GetAndPost => matches!(method, "GET" | "POST"),
        }
    }

    /// The list as the field `Allow` has it (RFC 9110, section 10.2.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::GetAndPost => "GET, POST",
        }
    }
}
