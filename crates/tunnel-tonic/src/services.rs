//! The services of a handler, found by name.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Services found by name, and a fallback for all other names.
#[derive(Clone, Debug, Default)]
pub struct Services {
    services: Routes,
    /// Routers that were added whole, oldest first.
    routes: Vec<Routes>,
    /// A router with only the fallback.
    fallback: Option<Routes>,
}

impl Services {
    /// Adds one service.
    ///
    /// # Panics
    ///
    /// If two services have the same name: tonic's router panics, as in tonic's server.
    pub fn add_service<S, B>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.services = std::mem::take(&mut self.services).add_service(service);
    }

    /// Adds a whole router with its fallback.
    pub fn add_routes(&mut self, routes: Routes) {
        self.routes.push(routes);
    }

    /// Sets the fallback for all other names.
    pub fn set_fallback<S, B>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let router = Routes::default().into_axum_router();
        self.fallback = Some(router.fallback_service(AnyBody(service)).into());
    }

    /// All services as one router. The latest router is searched first. A call to an unknown name
    /// goes to the fallback that was set, or else to that of the latest router.
    pub fn into_routes(self) -> Routes {
        let fallback = self.fallback.or_else(|| self.routes.last().cloned());
        let Some(fallback) = fallback else {
            return self.services;
        };
        let all = std::iter::once(self.services).chain(self.routes);
        all.fold(fallback, |others, routes| {
            let others = others.into_axum_router();
            routes.into_axum_router().fallback_service(others).into()
        })
    }
}

/// Turns a service for tonic's bodies into a service for any body.
#[derive(Clone, Debug)]
struct AnyBody<S>(S);

impl<S, B> Service<Request<B>> for AnyBody<S>
where
    S: Service<Request<Body>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.0.call(request.map(Body::new))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// A service that answers with its name.
    #[derive(Clone)]
    struct Named<const N: usize>(&'static str);

    const NAMES: [&str; 3] = ["a.A", "b.B", "c.C"];

    impl<const N: usize> NamedService for Named<N> {
        const NAME: &'static str = NAMES[N];
    }

    impl<const N: usize> Service<Request<Body>> for Named<N> {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let mut response = Response::new(Body::empty());
            let name = http::HeaderValue::from_static(self.0);
            response.headers_mut().insert("name", name);
            std::future::ready(Ok(response))
        }
    }

    fn routes_with_fallback(fallback: &'static str) -> Routes {
        let router = Routes::new(Named::<1>("b")).into_axum_router();
        router
            .fallback_service(AnyBody(Named::<2>(fallback)))
            .into()
    }

    /// The name of the service that gets a call to a path; `None` if no service does.
    fn served(services: &Services, path: &str) -> Option<String> {
        let request = Request::post(path).body(Body::empty()).expect("legal");
        let response = services.clone().into_routes().prepare().call(request);
        let response = response.now_or_never().expect("nothing waits");
        let name = response.expect("infallible").headers().get("name")?.clone();
        Some(name.to_str().expect("text").to_owned())
    }

    #[test]
    fn each_name_has_its_service_and_the_others_a_fallback() {
        let mut services = Services::default();
        services.add_service(Named::<0>("a"));
        assert_eq!(served(&services, "/a.A/Call").as_deref(), Some("a"));
        assert_eq!(served(&services, "/x.X/Call"), None);

        services.add_routes(routes_with_fallback("of the routes"));
        services.add_service(Named::<2>("c"));
        for (path, by) in [
            ("/a.A/Call", "a"),
            ("/b.B/Call", "b"),
            ("/c.C/Call", "c"),
            ("/x.X/Call", "of the routes"),
        ] {
            assert_eq!(served(&services, path).as_deref(), Some(by));
        }
        services.add_routes(Routes::new(Named::<0>("the newer a")));
        assert_eq!(
            served(&services, "/a.A/Call").as_deref(),
            Some("the newer a")
        );
        assert_eq!(served(&services, "/b.B/Call").as_deref(), Some("b"));

        services.set_fallback(Named::<0>("the fallback"));
        assert_eq!(served(&services, "/b.B/Call").as_deref(), Some("b"));
        assert_eq!(served(&services, "/c.C/Call").as_deref(), Some("c"));
        let other = served(&services, "/x.X/Call");
        assert_eq!(other.as_deref(), Some("the fallback"));
    }
}
