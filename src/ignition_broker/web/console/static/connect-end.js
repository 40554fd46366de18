/* Tells the page that opened this one how the connect ended. The browser delivers it to the origin
   that the link was made for, and to no other. */
(function () {
  "use strict";
  var ending = document.getElementById("ending");
  if (!ending || !window.opener) return;
  window.opener.postMessage(
    {
      type: "ignition-broker:connect",
      status: ending.dataset.status,
      reason: ending.dataset.reason || null,
    },
    ending.dataset.origin
  );
})();
