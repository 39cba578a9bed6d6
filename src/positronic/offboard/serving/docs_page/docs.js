// Shows what /openapi.json describes.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null, // a server elsewhere, which would be asked about this one
});
