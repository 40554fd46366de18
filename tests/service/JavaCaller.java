// java.net.http.HttpClient with its defaults: over http it offers h2c with every first request.
// Arguments: the broker's URL, a service's key, an admin's key.

import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.util.concurrent.CompletionException;

public class JavaCaller {
    private static String url;

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        String key = arguments[1];
        String adminKey = arguments[2];
        BodyPublisher counted = BodyPublishers.ofString("hello world");
        BodyPublisher chunked =
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream("hello world".getBytes()));
        HttpResponse<String> answer = post("/proxy/acme/v1/x", key, counted, false);
        System.out.println("counted " + answer.statusCode() + " " + answer.body());
        answer = post("/proxy/acme/v1/x", key, chunked, false);
        System.out.println("chunked " + answer.statusCode() + " " + answer.body());
        answer = post("/proxy/acme/v1/x", key, counted, true);
        System.out.println("waiting " + answer.statusCode() + " " + answer.body());
        String made = "{\"name\": \"java-client\", \"scopes\": [\"token\"], \"tenants\": [\"acme\"]}";
        answer = post("/admin/api-keys", adminKey, BodyPublishers.ofString(made), false);
        System.out.println("keys " + answer.statusCode());
        String rejected = "{\"rejected_token_sha256\": \"" + "0".repeat(64) + "\"}";
        answer = post("/token/acme/refresh", adminKey, BodyPublishers.ofString(rejected), false);
        System.out.println("refresh " + answer.statusCode());
        try {
            HttpClient.newHttpClient().newWebSocketBuilder()
                .header("Authorization", "Bearer " + key)
                .buildAsync(
                    URI.create(url.replace("http:", "ws:") + "/proxy/acme/v1/ws"),
                    new WebSocket.Listener() {})
                .join();
            System.out.println("websocket open");
        } catch (CompletionException refused) {
            System.out.println("websocket refused");
        }
    }

    /** Each by a client of its own, so that each connection begins with the offer. */
    private static HttpResponse<String> post(
            String path, String key, BodyPublisher body, boolean waits) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + path))
            .header("Authorization", "Bearer " + key)
            .header("Content-Type", "application/json")
            .expectContinue(waits)
            .POST(body)
            .build();
        return HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
    }
}
