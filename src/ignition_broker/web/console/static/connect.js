/* Opens a connect link in a pop-up and says how it ended. No dependencies; docs/connect-links.md.

     <script src="https://broker.example.com/connect.js"></script>

     button.onclick = function () {
       IgnitionBroker.connect(linkUrl, {
         onSuccess: function (result) {},  // {status: "connected"}
         onFailure: function (result) {},  // {status: "failed", reason: "access-denied"}
         onClosed:  function (result) {},  // {status: "closed"}
       });
     };

   Returns a promise of the same result, which is never rejected. What it says is for the page's
   looks: let your server ask the broker whether the tenant is connected. */
(function () {
  "use strict";
  var LOOK_EVERY_MS = 300;
  /* A message that was sent right before the pop-up closed may still be on its way. */
  var LAST_WORD_MS = 600;
  var TYPE = "ignition-broker:connect";
  var script = document.currentScript;
  var brokerOrigin = script && script.src ? new URL(script.src).origin : null;

  function connect(linkUrl, callbacks) {
    callbacks = callbacks || {};
    var link = new URL(linkUrl, document.baseURI);
    if (link.protocol !== "https:" && link.protocol !== "http:") {
      throw new TypeError("IgnitionBroker.connect: the link must be an http or https URL");
    }
    if (brokerOrigin !== null && link.origin !== brokerOrigin) {
      throw new TypeError("IgnitionBroker.connect: the link must be at " + brokerOrigin);
    }
    var popup = window.open(link.href, "_blank", "popup,width=560,height=760");

    return new Promise(function (resolve) {
      var timer = null;

      function end(result) {
        window.clearInterval(timer);
        window.removeEventListener("message", hear);
        resolve(result);
        var callback = {
          connected: callbacks.onSuccess,
          failed: callbacks.onFailure,
          closed: callbacks.onClosed,
        }[result.status];
        if (typeof callback === "function") callback(result);
      }

      function hear(event) {
        if (event.origin !== link.origin || event.source !== popup) return;
        var told = event.data;
        if (!told || told.type !== TYPE) return;
        if (told.status === "connected") {
          popup.close();
          end({ status: "connected" });
        } else if (told.status === "failed") {
          /* The pop-up stays: it says what went wrong. */
          end({ status: "failed", reason: String(told.reason || "failed") });
        }
      }

      if (!popup) {
        end({ status: "failed", reason: "popup-blocked" });
        return;
      }
      window.addEventListener("message", hear);
      timer = window.setInterval(function () {
        if (!popup.closed) return;
        window.clearInterval(timer);
        timer = window.setTimeout(function () {
          end({ status: "closed" });
        }, LAST_WORD_MS);
      }, LOOK_EVERY_MS);
    });
  }

  window.IgnitionBroker = Object.freeze({ connect: connect });
})();
