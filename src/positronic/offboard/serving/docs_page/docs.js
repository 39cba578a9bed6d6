// Shows what /openapi.json describes. The token that the status page was given in this tab is used here, too.
const token = sessionStorage.getItem("token");

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null, // which would be asked about this server
  requestInterceptor(request) {
    if (token && !request.headers.Authorization) request.headers.Authorization = `Bearer ${token}`;
    return request;
  },
});
